// Numbers of the social insurance of France (NIR) and of Great Britain (NINO), by their own rules of check. Those of the
// United States have none.

/** Sex, year, month, place of birth, number of the birth, key; the key is often left out. */
export const NIR = String.raw`[12][ .-]?\d{2}[ .-]?(?:0[1-9]|1[0-2]|[2-9]\d)[ .-]?(?:\d{2}|2[AB])[ .-]?\d{3}[ .-]?\d{3}(?:[ .-]?\d{2})?`;
export const NINO = String.raw`[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z](?:[ -]?\d{2}){3}[ -]?[A-D]`;

const NIR_WORD = /(?:\bnir\b|\bs[ée]cu\b|sociale)[^\n]{0,24}$/i;
const NINO_WORD = /(?:national insurance|\bnino\b|\bni (?:no|num|#)|\bni:)[^\n]{0,24}$/i;
const IN_PAIRS = /^[A-Z]{2}(?:[ -]\d{2}){3}[ -][A-D]$/;
const NEVER_GIVEN = /^(?:BG|GB|NK|KN|TN|NT|ZZ)/;
/** In a number without gaps the month is one: there are too many numbers. */
const MONTH = /^\d{3}(?:0[1-9]|1[0-2])/;

export function isNir(match: string, left: string): boolean {
  if (NIR_WORD.test(left)) return true;
  const text = match.replaceAll(/[ .-]/g, "");
  if (text.length !== 15 || (text === match && !MONTH.test(text))) return false;
  // Corsica has letters.
  const digits = text.replace("2A", "19").replace("2B", "18");
  return 97 - (Number(digits.slice(0, 13)) % 97) === Number(digits.slice(13));
}

export const isNino = (match: string, left: string): boolean =>
  !NEVER_GIVEN.test(match) && (IN_PAIRS.test(match) || NINO_WORD.test(left));

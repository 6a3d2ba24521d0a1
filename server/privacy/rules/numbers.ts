// Numbers that name a person, an account or a machine. A check digit adds confidence, and a word to the left
// can stand in for it: numbers in logs are often masked, mistyped or made up, and still not ours to keep.
import { APART, CARD_APART, ibanApart, isCardApart } from "./apart.ts";
import type { Rule, Span } from "./rule.ts";
import { NINO, NIR, isNino, isNir } from "./social.ts";

/** What must not follow a number. A placeholder is like a word, because it stands for one. */
export const END = String.raw`(?![\w-]|\[REDACTED_)`;
const CARD_WORD =
  /(?:card|visa|amex|american express|mastercard|maestro|discover|diners|jcb|\bcc\b|\bpan\b|payment)[^\n]{0,24}$/i;
const COUNTRY =
  /^(?:A[DELTZ]|B[AEGHRY]|C[HRYZ]|D[EKO]|E[EGS]|F[IOR]|G[BEILRT]|H[RU]|I[ELQST]|JO|K[WZ]|L[BCITUVY]|M[CDEKRTU]|N[LO]|P[KLST]|QA|R[OS]|S[ACEIKMTV]|T[LNR]|UA|V[AG]|XK)/i;
const IN_FOURS = /^[A-Z]{2}\d{2}(?:[A-Z0-9]{11,30}|(?:[ -][A-Z0-9]{4}){2,7}(?:[ -][A-Z0-9]{1,4})?)$/i;
const GROUPED = /^(?:\d{4}([ -])\d{4}\1\d{4}\1\d{4}|3\d{3}([ -])\d{6}\2\d{5})$/;
const USUAL_CARD = new RegExp(String.raw`^\d(?:[ -]?\d){11,18}${END}`);
const USUAL_IBAN = new RegExp(String.raw`^[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}${END}`, "i");
const COUNT_WORD = /\b(?:order|invoice|ticket|tracking|reference|ref)\b[^\n]{0,8}$/i;
const SSN_WORD = /(?:ssn|social|\bss\s?#|\bss\s?n(?:o|um))[^\n]{0,24}$/i;
const GAP = String.raw`[\s./_·-]{0,2}`;
const BIRTH_WORD = /(?:dob\b|d\.o\.b|birth|\bborn\b|\bbday\b)[^\n\d]{0,20}$/i;
// A row of a table has no words: a date next to a number of the social security is a birthday.
const SSN_CELL = /\d{3}-\d{2}-\d{4}["']?[|,;\t] ?["']?$/;
const IBAN_WORD = /iban[^\n]{0,24}$/i;
const MONTH = String.raw`(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t|tember)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)\.?`;
const OCTET = String.raw`(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)`;
const GROUP = "[0-9a-f]{1,4}";

export const numbers: readonly Rule[] = [
  {
    kind: "IBAN",
    pattern: String.raw`\b[A-Z]{2}\d{2}(?:[A-Z0-9]|${APART}[A-Z0-9]){11,30}${END}`,
    flags: "i",
    spansIn: ibanIn,
  },
  {
    kind: "CREDIT_CARD",
    pattern: String.raw`(?<![\w.-])(?:${CARD_APART}|\d(?:[ -]?\d){11,18}${END})`,
    spansIn: cardIn,
  },
  {
    kind: "SSN",
    pattern: String.raw`(?<![\w-])(?:\d{3}-\d{2}-\d{4}|${NIR})${END}`,
    accepts: (match, left) => match.length === 11 || isNir(match, left),
  },
  {
    kind: "SSN",
    pattern: String.raw`(?<![\w-])[\dOolISB]{3}${GAP}[\dOolISB]{2}${GAP}[\dOolISB]{4}${END}`,
    accepts: (match, left) => /\d/.test(match) && SSN_WORD.test(left),
  },
  {
    kind: "SSN",
    pattern: `(?<![\\w-])${NINO}${END}`,
    accepts: isNino,
  },
  {
    kind: "MAC",
    pattern: String.raw`\b(?:[0-9a-f]{2}[:-]){5}[0-9a-f]{2}${END}`,
    flags: "i",
    needs: /[:-][0-9a-f]{2}[:-]/gi,
  },
  {
    kind: "MAC",
    pattern: String.raw`\b(?:[0-9a-f]{4}\.){2}[0-9a-f]{4}${END}`,
    flags: "i",
    needs: /\.[0-9a-f]{4}\./gi,
  },
  // What a machine calls itself says nothing of anybody.
  {
    kind: "IP",
    pattern: String.raw`(?<![\w.])(?!127\.0\.0\.1(?!\d)|0\.0\.0\.0)(?:${OCTET}\.){3}${OCTET}(?!\w|\.?(?:\d|\[REDACTED_))`,
  },
  {
    kind: "IP",
    pattern: String.raw`(?<![\w:])(?:(?:${GROUP}:){7}${GROUP}|(?:${GROUP}(?::${GROUP}){0,6})?::(?:${GROUP}(?::${GROUP}){0,6})?)(?![\w:]|\[REDACTED_)`,
    flags: "i",
    needs: /:/g,
    accepts: (match) => /[0-9a-f]/i.test(match) && match !== "::1",
  },
  {
    kind: "DOB",
    pattern: String.raw`(?<![\w-])(?:\d{4}[\/.-]\d{1,2}[\/.-]\d{1,2}|\d{1,2}[\/.-]\d{1,2}[\/.-]\d{2,4}|\d{1,2}(?:st|nd|rd|th)?[ -](?:of )?${MONTH},?[ -]\d{2,4}|${MONTH} \d{1,2}(?:st|nd|rd|th)?,? \d{4})${END}`,
    flags: "i",
    accepts: (_, left) => BIRTH_WORD.test(left) || SSN_CELL.test(left),
  },
];

/** A number may be followed by more groups ("… 1111 12/27"): its longest valid start counts. */
function startThat(match: string, isValid: (text: string) => boolean): readonly Span[] | undefined {
  for (let end = match.length; end > 11; end -= 1) {
    const cutsGroup = end < match.length && !/[ -]/.test(match.charAt(end));
    if (!cutsGroup && isValid(match.slice(0, end))) return [{ start: 0, end }];
  }
  return undefined;
}

const compact = (text: string): string => text.replaceAll(/[ -]/g, "");

function ibanIn(match: string, left: string): readonly Span[] | undefined {
  const isSpoken = IBAN_WORD.test(left);
  // One of 97 words beside it would make it valid, so words count only in groups of four, and names of files and
  // the like not at all.
  const isSure = (text: string): boolean =>
    COUNTRY.test(text) &&
    IN_FOURS.test(text) &&
    (isSpoken || /[ -]/.test(text) || text === text.toUpperCase()) &&
    isIban(compact(text));
  const usual = USUAL_IBAN.exec(match)?.[0] ?? "";
  const valid = startThat(usual, isSure);
  if (valid) return valid;
  const hasOther = usual.length < match.length;
  const apart = hasOther && ibanApart(match, (text) => COUNTRY.test(text) && isIban(text));
  if (apart) return [{ start: 0, end: apart.length }];
  if (!isSpoken) return undefined;
  // Words may follow it that look like more of its groups.
  const text = usual.replace(/(?:[ -][a-z]{1,30})+$/i, "");
  return text.length > 14 && /\d{4}/.test(text) ? [{ start: 0, end: text.length }] : undefined;
}

function cardIn(match: string, left: string): readonly Span[] | undefined {
  const isSpoken = CARD_WORD.test(left);
  const usual = USUAL_CARD.exec(match)?.[0] ?? "";
  const found = usualCardIn(usual, left, isSpoken);
  if (found) return found;
  const isApart = isCardApart(match, left, isSpoken) && isLuhn(match.replaceAll(/%20|\D/g, ""));
  return isApart ? [{ start: 0, end: match.length }] : undefined;
}

function usualCardIn(match: string, left: string, isSpoken: boolean): readonly Span[] | undefined {
  if (match === "" || /^(\d)(?:[ -]?\1)*$/.test(match)) return undefined;
  const mayBeCard = /^(?:[2-6]|1800|2131)/.test(compact(match));
  const mayBeGrouped = isSpoken || !COUNT_WORD.test(left);
  const isSure = (text: string): boolean => (mayBeGrouped && GROUPED.test(text)) || isLuhn(compact(text));
  const sure = mayBeCard ? startThat(match, isSure) : undefined;
  return sure ?? (isSpoken ? [{ start: 0, end: match.length }] : undefined);
}

function isLuhn(digits: string): boolean {
  if (digits.length < 13 || digits.length > 19) return false;
  let sum = 0;
  for (let index = 0; index < digits.length; index += 1) {
    const value = Number(digits[digits.length - 1 - index]) * (index % 2 === 0 ? 1 : 2);
    sum += value > 9 ? value - 9 : value;
  }
  return sum % 10 === 0;
}

function isIban(text: string): boolean {
  if (text.length < 15 || text.length > 34) return false;
  let remainder = 0;
  for (const character of text.slice(4) + text.slice(0, 4)) {
    const value = Number.parseInt(character, 36);
    remainder = (remainder * (value > 9 ? 100 : 10) + value) % 97;
  }
  return remainder === 1;
}

// What personal data and secrets look like in text. Every repetition is bounded, so a scan is linear in
// the text; a rule that needs arithmetic (Luhn, mod 97) says how much of its match really is one.

export interface Pattern {
  /** Names the placeholder: `[REDACTED_<kind>]`. */
  readonly kind: string;
  readonly regex: RegExp;
  /** How many characters of the match, from its start, are the value; 0 refuses it. Absent: all of it. */
  readonly accept?: (match: string) => number;
}

/** In order: an earlier rule takes its match away from the later ones. */
export const patterns: readonly Pattern[] = [
  {
    kind: "SECRET",
    regex: new RegExp(
      [
        String.raw`\bsk-[\w-]{16,200}`,
        String.raw`\b(?:AKIA|ASIA|AIDA|AROA)[A-Z0-9]{16}\b`,
        String.raw`\bgh[pousr]_[A-Za-z0-9]{20,255}`,
        String.raw`\bgithub_pat_\w{20,255}`,
        String.raw`\bglpat-[\w-]{20,64}`,
        String.raw`\bxox[abeprs]-[\w-]{10,200}`,
        String.raw`\b[srp]k_(?:live|test)_\w{10,128}`,
        String.raw`\bAIza[\w-]{35}`,
        String.raw`\beyJ[\w-]{10,2000}\.eyJ[\w-]{10,4000}\.[\w-]{10,1000}`,
      ].join("|"),
      "g",
    ),
  },
  { kind: "EMAIL", regex: /[\p{L}\p{N}._%+'-]{1,64}@[\p{L}\p{N}.-]{1,253}\.\p{L}{2,24}/gu },
  {
    kind: "IBAN",
    regex: /\b[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]){11,30}\b/gi,
    accept: (match) => longestGroups(match, isIban),
  },
  {
    kind: "CREDIT_CARD",
    regex: /(?<![\w.-])\d(?:[ -]?\d){12,18}(?!\w)/g,
    accept: (match) => longestGroups(match, isCard),
  },
  { kind: "SSN", regex: /(?<![\w-])\d{3}-\d{2}-\d{4}(?![\w-])/g },
  {
    kind: "PHONE",
    regex:
      /(?<![\w.+-])(?:\+\d(?:[ ().-]{0,2}\d){7,14}|(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4})(?![\w-])/g,
  },
];

/** A card number or IBAN may be followed by more groups ("… 1111 12/27"): the longest valid start counts. */
function longestGroups(match: string, isValid: (compact: string) => boolean): number {
  for (let end = match.length; end > 12; end -= 1) {
    const cutsGroup = end < match.length && !/[ -]/.test(match.charAt(end));
    if (!cutsGroup && isValid(match.slice(0, end).replaceAll(/[ -]/g, ""))) return end;
  }
  return 0;
}

function isCard(digits: string): boolean {
  if (digits.length < 13 || digits.length > 19 || /^(\d)\1*$/.test(digits)) return false;
  let sum = 0;
  for (const [index, digit] of digits.split("").toReversed().entries()) {
    const value = Number(digit) * (index % 2 === 0 ? 1 : 2);
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

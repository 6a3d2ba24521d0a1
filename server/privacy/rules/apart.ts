// Groups of a card or an account as they stand in pages, tables and addresses: with something else between them than one
// space or dash. Numbers stand so too, so the check digits have to be right, and more of the same beside them says no.

/** What may stand between two groups. */
export const APART = String.raw`(?: (?:- | )?|[-./_·\t+]|%20|\r{0,2}\n|\r{1,2})`;
const FOUR_GROUPS = String.raw`(?:2[2-7]|[3-6]\d)\d{2}(?:${APART}\d{4}){3}`;
/** Four groups that may be those of a card; no year begins so. */
export const CARD_APART = String.raw`${FOUR_GROUPS}(?!${APART}\d|[\w-]|\[REDACTED_)`;

const GAP = new RegExp(APART, "g");
const SPLIT = new RegExp(APART);
const BREAK = /^(?:\r{0,2}\n|\r{1,2})$/;
/** Rows of tables look the same, and so do sums. */
const IN_ROW = /^(?:\t| {2}|\+)$/;
const IS_CARD = new RegExp(`^${FOUR_GROUPS}$`);
// Of an escape to the left only its beginning is there.
const BEHIND_DIGITS = new RegExp(String.raw`\d(?:${APART}|%2 )$`);
const IN_FOURS = new RegExp(
  String.raw`^[A-Z]{2}\d{2}(?:${APART}[A-Z0-9]{4}){2,7}(?:${APART}[A-Z0-9]{1,4})?(?![A-Z0-9])`,
);

/** Whether `match` is written like a card, all of it, with the same between all groups but at the end of a line. */
export function isCardApart(match: string, left: string, isSpoken: boolean): boolean {
  if (!IS_CARD.test(match) || BEHIND_DIGITS.test(left)) return false;
  const gaps = gapsIn(match);
  return isEven(gaps) && (isSpoken || !gaps.some((gap) => IN_ROW.test(gap)));
}

/** The longest beginning of `match` in groups of four that is valid. */
export function ibanApart(match: string, isValid: (text: string) => boolean): string | undefined {
  const text = IN_FOURS.exec(match)?.[0] ?? "";
  const gaps = gapsIn(text);
  const groups = text.split(SPLIT);
  for (let count = groups.length; count > 3; count -= 1) {
    const before = gaps.slice(0, count - 1);
    const compact = groups.slice(0, count).join("");
    if (isEven(before) && isValid(compact)) return text.slice(0, compact.length + before.join("").length);
  }
  return undefined;
}

const gapsIn = (text: string): readonly string[] => text.match(GAP) ?? [];

function isEven(gaps: readonly string[]): boolean {
  const others = gaps.filter((gap) => !BREAK.test(gap));
  return others.length >= gaps.length - 1 && new Set(others).size === 1;
}

// Escapes of any sign in an address (%3A). Their last letter or digit is none of the word that follows, though it looks
// glued to it.
const CLASS = String.raw`\[(?:\\[^]|[^\]\\])*\]`;
const SET = String.raw`${CLASS}|\\(?:[pP]\{[^}]*\}|[wWdDsS])`;
// At the end of a sequence a border has nothing on its right; where it may be the end of the text, it is a beginning's.
const BORDER = String.raw`\\b(?!\)|\|(?!\$\))|$)`;
const NOT_BEHIND = String.raw`\(\?<!(?:${CLASS}|\\[^]|[^()[\\])*\)`;
const BORDERS = new RegExp(
  String.raw`\(\?<!(?<set>${SET})\)|(?<border>${BORDER}|${NOT_BEHIND})|${CLASS}|\\[^]`,
  "g",
);

/** Whether an escape may stand in a text. */
export const mayEscape = (text: string): boolean => text.includes("%") && /%[\da-fA-F]{2}/.test(text);

/** A pattern, or the beginnings of one, whose borders on the left lie behind an escape too. */
export const behindEscapes = (pattern: string): string =>
  pattern.replace(BORDERS, (all: string, set?: string, border?: string) => {
    // To look at each place for an escape takes half as long again.
    if (set) return String.raw`(?<!(?<!%[\da-fA-F](?=[\da-fA-F]))${set})`;
    return border ? String.raw`(?:${border}|(?<=%[\da-fA-F]{2}))` : all;
  });

/** A text with spaces for what its escapes end with: words may begin behind them. */
export const withoutEscapes = (text: string): string =>
  mayEscape(text) ? text.replaceAll(/(%[\da-fA-F])[\da-fA-F]/g, "$1 ") : text;

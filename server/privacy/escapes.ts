// Line breaks and tabs in JSON that is kept as a text: \n, and \\n in JSON inside of JSON. Their letter is none of the word
// that follows, though it looks glued to it.
const CLASS = String.raw`\[(?:\\[^]|[^\]\\])*\]`;
const BORDER = /^(\(\?:)?\\b/;
const NOT_BEHIND = new RegExp(String.raw`^\(\?<!(${CLASS})\)`);

/** Whether such an escape may stand in a text. */
export const mayEscape = (text: string): boolean => text.includes("\\") && /\\[nrt]/.test(text);

/** A pattern, or the beginnings of one, whose border on the left lies behind such an escape too. */
export const behindEscapes = (pattern: string): string =>
  pattern
    .replace(BORDER, (_, group = "") => String.raw`${group}(?:\b|(?<=\\[nrt]))`)
    .replace(NOT_BEHIND, (_, set: string) => String.raw`(?<!(?<!\\(?=[nrt]))${set})`);

/** A text with spaces for the letters of its escapes: words may begin behind them. */
export const withoutEscapes = (text: string): string =>
  mayEscape(text) ? text.replaceAll(/\\[nrt]/g, String.raw`\ `) : text;

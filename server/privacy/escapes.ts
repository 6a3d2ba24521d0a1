// Escapes in a text: line breaks and tabs in JSON (\n, and \\n in JSON inside of JSON), any sign in an address (%3A). Their
// last letter or digit is none of the word that follows, though it looks glued to it.
const CLASS = String.raw`\[(?:\\[^]|[^\]\\])*\]`;
const BORDER = /^(\(\?:)?\\b/;
const NOT_BEHIND = new RegExp(String.raw`^\(\?<!(${CLASS})\)`);

/** Whether an escape may stand in a text. */
export const mayEscape = (text: string): boolean =>
  (text.includes("\\") && /\\[nrt]/.test(text)) || (text.includes("%") && /%[\da-fA-F]{2}/.test(text));

/** A pattern, or the beginnings of one, whose border on the left lies behind an escape too. */
export const behindEscapes = (pattern: string): string =>
  pattern
    .replace(BORDER, (_, group = "") => String.raw`${group}(?:\b|(?<=\\[nrt]|%[\da-fA-F]{2}))`)
    .replace(
      NOT_BEHIND,
      (_, set: string) => String.raw`(?<!(?<!\\(?=[nrt])|%[\da-fA-F](?=[\da-fA-F]))${set})`,
    );

/** A text with spaces for what its escapes end with: words may begin behind them. */
export const withoutEscapes = (text: string): string =>
  mayEscape(text) ? text.replaceAll(/(\\)[nrt]|(%[\da-fA-F])[\da-fA-F]/g, "$1$2 ") : text;

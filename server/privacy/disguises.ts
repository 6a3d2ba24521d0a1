// Ways to write a character that rules do not read. Nobody sees some of them: zero-width ones, soft hyphens, marks of
// direction. Others look like one that rules know: spaces that do not break, dashes, letters and digits in full width,
// digits of other scripts. HTML and JSON write one by its number (&#64;, \u00a0), JSON line breaks and tabs by a letter (\n).
const HIDDEN = String.raw`(?:[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]|\udb40[\udc00-\uddef]|\ud834[\udd73-\udd7a]|\ud82f[\udca0-\udca3])+`;
const SPACE = String.raw`\u00a0\u2000-\u200a\u202f\u205f\u3000`;
const DASH = String.raw`\u2010-\u2015\u2212\ufe58\ufe63`;
const FULL_WIDTH = String.raw`\uff01-\uff5e`;
const SMALL = String.raw`\ufe52\ufe6b`;
/** The zeros of other scripts; their digits follow. */
const ZEROS =
  "\u0660\u06f0\u07c0\u0966\u09e6\u0a66\u0ae6\u0b66\u0be6\u0c66\u0ce6\u0d66\u0de6\u0e50\u0ed0\u0f20\u1040\u1090\u17e0\u1810\u1946\u19d0\u1a80\u1a90\u1b50\u1bb0\u1c40\u1c50\ua620\ua8d0\ua900\ua9d0\ua9f0\uaa50\uabf0".split(
    "",
  );
const DIGIT = ZEROS.map((zero) => `${zero}-${String.fromCharCode(zero.charCodeAt(0) + 9)}`).join("");
const MATHEMATICAL = String.raw`\ud835[\udfce-\udfff]`;
const NAMES = new Map([
  ["nbsp", " "],
  ["commat", "@"],
  ["period", "."],
]);
const ENTITY = `&(?:${[...NAMES.keys()].join("|")}|#\\d{2,4}|#[xX][\\da-fA-F]{2,4});`;
// In JSON inside of JSON there are more backslashes. All of them go with it: one that stays would escape a placeholder.
// To look behind at each character would cost a tenth of everything, so the first backslash stands before that.
const ESCAPE = String.raw`\\(?<!\\\\)\\{0,14}(?:u[\da-fA-F]{4}|[nrt])`;
// White space, as they are. A value that ends at a line break does not end at one of these: in JSON it may go on behind.
const BREAKS = new Map([
  ["\n", "\r"],
  ["\t", "\v"],
]);
const LETTERS: Readonly<Record<string, string>> = { n: "\r", r: "\r", t: "\v" };

/** Each of them, with others that stand beside it if nobody sees them. */
export const DISGUISED = new RegExp(
  `${HIDDEN}|[${SPACE}${DASH}${FULL_WIDTH}${SMALL}${DIGIT}]|${MATHEMATICAL}|${ENTITY}|${ESCAPE}`,
  "g",
);
const IS_HIDDEN = new RegExp(`^${HIDDEN}$`);
const IS_SPACE = new RegExp(`^[${SPACE}]$`);
const IS_DASH = new RegExp(`^[${DASH}]$`);
const IS_FULL_WIDTH = new RegExp(`^[${FULL_WIDTH}]$`);
const IS_DIGIT = new RegExp(`^(?:[${DIGIT}]|${MATHEMATICAL})$`);
const FULL_WIDTH_TO_PLAIN = 0xfee0;
const FIRST_MATHEMATICAL = 0x1d7ce;
// Quotes and brackets have a meaning where they are written as such; half a character has none.
const IS_SILENT = /["'`\\[\]{}(),;\ud800-\udfff]/;

/** The character that rules read for a match of DISGUISED, or none. */
export function plainOf(text: string): string {
  const written = writtenIn(text);
  if (IS_SPACE.test(written)) return " ";
  if (IS_DASH.test(written)) return "-";
  if (IS_HIDDEN.test(written)) return "";
  if (IS_DIGIT.test(written)) return digitOf(written);
  if (IS_FULL_WIDTH.test(written)) return String.fromCharCode(written.charCodeAt(0) - FULL_WIDTH_TO_PLAIN);
  if (written === "\ufe6b") return "@";
  return written === "\ufe52" ? "." : written;
}

function writtenIn(text: string): string {
  if (text.startsWith("&")) {
    const [, hexadecimal, decimal] = /^&#(?:x([\da-f]+)|(\d+));$/i.exec(text) ?? [];
    if (hexadecimal === undefined && decimal === undefined) return NAMES.get(text.slice(1, -1)) ?? " ";
    return characterOf(hexadecimal === undefined ? Number(decimal) : Number.parseInt(hexadecimal, 16));
  }
  if (!text.startsWith("\\")) return text;
  return LETTERS[text.at(-1) ?? ""] ?? characterOf(Number.parseInt(text.slice(-4), 16));
}

function characterOf(code: number): string {
  const character = String.fromCharCode(code);
  return IS_SILENT.test(character) ? " " : (BREAKS.get(character) ?? character);
}

function digitOf(digit: string): string {
  const code = digit.codePointAt(0) ?? 0;
  if (code >= FIRST_MATHEMATICAL) return String((code - FIRST_MATHEMATICAL) % 10);
  const zero = ZEROS.findLast((one) => one <= digit) ?? "";
  return String(code - zero.charCodeAt(0));
}

const UNFINISHED =
  /(?:[\ud800-\udbff]|(?<!\\)\\{1,15}(?:u[\da-fA-F]{0,3})?|&(?:#\d{0,4}|#[xX][\da-fA-F]{0,4}|n(?:b(?:sp?)?)?|c(?:o(?:m(?:m(?:at?)?)?)?)?|p(?:e(?:r(?:i(?:od?)?)?)?)?)?)$/;
const LONGEST = 20;

/** Where the beginning of one stands that more text may finish; the length of the text if there is none. */
export function unfinishedIn(text: string): number {
  const { length } = text;
  const least = Math.max(0, length - LONGEST);
  for (let at = length - 1; at >= least; at -= 1) {
    const code = text.charCodeAt(at);
    if (code === 38 || code === 92 || (code & 0xfc00) === 0xd800) {
      const found = UNFINISHED.exec(text.slice(least));
      return found ? least + found.index : length;
    }
  }
  return length;
}

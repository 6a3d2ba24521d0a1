// Numbers in JSON. A text stands in quotes already; a placeholder in the place of a number has to bring its own, or the
// arguments of a call, told by the model as JSON, would be JSON no more.
import { CONTEXT } from "./rules/prefix.ts";

const NUMBER = /^\d[\d.eE+-]*$/;
const NUMBERS = String.raw`[\d\s.,eE+-]*`;
/** Behind the name of a field, or among the values of a list. Quotes too many do no harm to prose. */
const EXPECTED = new RegExp(
  String.raw`(?:"\s*:|\[|(?:["}\]]|\b(?:true|false|null))\s*,)(?:\s*|${NUMBERS},\s*)$`,
);
/** In a list so long that its beginning is out of sight. */
const LISTED = new RegExp(String.raw`^${NUMBERS},\s*$`);

/**
 * Whether what was found is a number of JSON.
 * @param left the 40 characters before it, less at the start of a text
 */
export const isJsonNumber = (found: string, left: string): boolean =>
  NUMBER.test(found) && (EXPECTED.test(left) || (left.length >= CONTEXT && LISTED.test(left)));

/** The last quote in a part of a text, with the backslashes it has in JSON inside of JSON; undefined if there is none. */
export function lastQuote(text: string, from: number, to: number): string | undefined {
  const at = text.slice(from, to).lastIndexOf('"');
  if (at === -1) return undefined;
  const before = /\\{0,64}$/.exec(text.slice(Math.max(0, from + at - 64), from + at))?.[0].length ?? 0;
  // Backslashes at the end of a text stand before its quote too. Each level doubles them and adds one to the quote, so
  // the quote's own are the ones at the end of the number in binary.
  const own = before & ~(before + 1);
  return `${"\\".repeat(own)}"`;
}

// A pattern of an operator in the characters that rules read. He writes them as they stand in his texts, and rules never
// see some of those: a colon in full width is a plain one to them, a joiner that nobody sees is not there at all, and a
// line break that JSON writes as \n is white space of another kind.
import { DISGUISED, plainOf } from "../disguises.ts";

const CLASS = String.raw`\[(?:\\[^]|[^\]\\])*\]`;
/** Two halves of one character, as the flag `u` reads them. */
const PAIR = String.raw`\\u[dD][89abAB][\da-fA-F]{2}\\u[dD][c-fC-F][\da-fA-F]{2}`;
const ONE = String.raw`${PAIR}|\\u\{[\da-fA-F]{1,6}\}|\\u[\da-fA-F]{4}|\\[^]|[^]`;
const PART = new RegExp(`${CLASS}|${ONE}`, "gu");
const MEMBER = new RegExp(`(?<from>${ONE})(?:-(?<to>${ONE}))?`, "gu");
const IS_DISGUISED = new RegExp(`^(?:${DISGUISED.source})$`);

export const asRead = (pattern: string): string =>
  pattern.replace(PART, (part: string) =>
    part.length > 1 && part.startsWith("[") ? ofClass(part) : ofOne(part),
  );

/** Line breaks and tabs, with what rules read for their escapes. */
const BREAKS = new Map([
  ["\n", String.raw`\n\r`],
  ["\t", String.raw`\t\v`],
]);

function ofOne(part: string): string {
  const both = breaksIn(part);
  if (both) return `[${both}]`;
  const plain = plainIn(part);
  if (plain === undefined) return joined(part);
  return plain === "" ? "(?:)" : byNumber(plain);
}

function ofClass(part: string): string {
  const open = part.startsWith("[^") ? "[^" : "[";
  const members = part
    .slice(open.length, -1)
    .replace(
      MEMBER,
      (all: string, from: string, to?: string) =>
        (to === undefined ? breaksIn(all) : undefined) ?? `${joined(all)}${plainMember(from, to ?? from)}`,
    );
  return `${open}${members}]`;
}

/** What a range of them has in plain characters, if that is a range too. */
function plainMember(from: string, to: string): string {
  const [first, last] = [plainIn(from), plainIn(to)];
  return first && last && first <= last ? `${byNumber(first)}-${byNumber(last)}` : "";
}

/** What rules read for a character that stands for a plain one or for none; undefined if it does not. */
function plainIn(part: string): string | undefined {
  const character = characterOf(part);
  return character !== undefined && IS_DISGUISED.test(character) ? plainOf(character) : undefined;
}

const breaksIn = (part: string): string | undefined =>
  BREAKS.get(part === String.raw`\n` ? "\n" : part === String.raw`\t` ? "\t" : (characterOf(part) ?? ""));

const joined = (part: string): string =>
  part.replaceAll(new RegExp(String.raw`${PAIR}|\\[^]`, "gu"), (one) =>
    one.length > 2 ? (characterOf(one) ?? one) : one,
  );

/** The character that a part of a pattern stands for; undefined for escapes that are no numbers. */
function characterOf(part: string): string | undefined {
  if (!part.startsWith("\\")) return part;
  const codes = [...part.matchAll(/\\u\{?([\da-fA-F]{1,6})\}?/g)].map(([, code = ""]) =>
    Number.parseInt(code, 16),
  );
  if (codes.length === 0 || codes.some((code) => code > 0x10ffff)) return undefined;
  return codes.length === 1 ? String.fromCodePoint(...codes) : String.fromCharCode(...codes);
}

const byNumber = (plain: string): string =>
  String.raw`\x${plain.charCodeAt(0).toString(16).padStart(2, "0")}`;

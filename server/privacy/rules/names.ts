// Names of persons, by lists of first and last names. A list cannot tell Rose from a rose, so capital letters and
// neighbours have to: a first name or a title begins a name, and what stands beside it goes on with it.
import { firstNames, lastNames } from "./names-data.ts";
import type { Rule, Span } from "./rule.ts";

const WORD = String.raw`\p{Lu}\p{L}{0,30}(?:['’-]\p{L}{1,30}){0,3}\.?`;
const PARTICLE = "(?:de|la|van|von|der|den|da|del|di|du|bin|al-|el)";
const TITLE =
  /^(?:Mr|Mrs|Ms|Miss|Mister|Dr|Doctor|Prof|Professor|Hon|Judge|Sir|Madam|Herr|Frau|Señor|Señora)\.?$/;
const TITLE_BEFORE = /(?<!\p{L})(?:Mr|Mrs|Ms|Miss|Mister|Dr|Prof|Professor|Hon|Judge|Sir|Madam)\.? $/u;
/** Words that are names too. */
const COMMON = new Set(
  (
    "The This That May Will Mark Bill Grant Rose Art Hope Faith Joy Summer June April August Rich Long Young White " +
    "Black Brown Green King Street Day Major Max Page Case Love Best Good Price Small Little Short North West East " +
    "South Hill Lake Park Wood Church Field Ford Data An In Do So Van De Von My Can See Way Well Home Name Baby"
  ).split(" "),
);
/** A capital word so many places after a first name is taken for a last name that is on no list. */
const REACH = 2;

interface Word extends Span {
  readonly text: string;
}

export const names: readonly Rule[] = [
  {
    kind: "PERSON",
    pattern: String.raw`(?<![\p{L}\p{N}_'’-])${WORD}(?: (?:${PARTICLE} ){0,2}${WORD}){0,4}(?![\p{L}\p{N}_]|(?:['’-]\p{L}{1,30}){0,3}['’.-]?\[REDACTED_)`,
    spansIn: namesIn,
  },
];

function namesIn(run: string, left: string): readonly Span[] {
  const spans: { start: number; end: number }[] = [];
  const words = wordsOf(run);
  let title: Span | undefined = TITLE_BEFORE.test(left) ? { start: 0, end: 0 } : undefined;
  /** Words since the beginning of the name that is open; -1 for none. */
  let since = -1;
  for (const [index, word] of words.entries()) {
    const open = since >= 0 ? spans.at(-1) : undefined;
    if (TITLE.test(word.text)) {
      title = word;
      since = -1;
      continue;
    }
    if (open && isLast(word.text, since + 1)) {
      open.end = word.end;
      since += 1;
    } else if (title || isFirst(word.text, words[index + 1]?.text)) {
      spans.push({ start: title?.end ? title.start : word.start, end: word.end });
      since = 0;
    } else since = -1;
    title = undefined;
    // A full stop ends a name, unless it stands after an initial.
    if (run[word.end] === "." && word.text.length > 1) since = -1;
  }
  return spans;
}

function isFirst(text: string, next = ""): boolean {
  const { first, last } = namesKnown();
  // Mark is a word, but Mark Ferguson is not.
  return first.has(text) && (!COMMON.has(text) || (last.has(next) && !COMMON.has(next)));
}

function isLast(text: string, place: number): boolean {
  if (text.length === 1 || namesKnown().last.has(text)) return true;
  return place <= REACH && !COMMON.has(text);
}

/** Words of a run with a capital letter, without full stop and genitive. */
function wordsOf(run: string): Word[] {
  return [...run.matchAll(/(?<![\p{L}'’-])\p{Lu}[\p{L}'’-]*/gu)].map((found) => {
    const text = found[0].replace(/['’]s$/, "");
    return { text, start: found.index, end: found.index + text.length };
  });
}

interface Lists {
  readonly first: ReadonlySet<string>;
  readonly last: ReadonlySet<string>;
}
let lists: Lists | undefined;

// Made when first needed: most servers do not look for names.
function namesKnown(): Lists {
  lists ??= { first: setOf(firstNames), last: setOf(lastNames) };
  return lists;
}

const setOf = (lines: readonly string[]): ReadonlySet<string> =>
  new Set(lines.flatMap((line) => line.split(" ")));

// The beginnings of a rule's matches, derived from its pattern: what a stream must hold back, because more text
// may still make a match of it. Only bounded patterns have them, so all others are refused here, with the reason.
import { ConfigInvalid } from "../../errors.ts";
import { ALL, charactersAt, isNone, united } from "./characters.ts";
import type { Characters } from "./characters.ts";
import type { Atom, Branches, Item, Quantifier } from "./pattern-parts.ts";
import { samplesFor, takes } from "./samples.ts";
import { mostWays } from "./ways.ts";

/** A lookbehind, and the text that a rule may look at to the left of its match, in characters. */
export const CONTEXT = 40;
/** The longest match with its lookahead, in UTF-16 units; a stream cannot hold more. */
const MAX_EXTENT = 4000;
/** So many ways to share a text of one character among repetitions are tried at each place of it. */
const MAX_WAYS = 10_000;
/** So often an ambiguous group may be repeated: the ways to match it grow with this power. */
const FEW = 3;

export interface Beginnings {
  /** A pattern that matches at each place from which the text up to its end may still become a match. */
  readonly prefix: string;
  /** The longest match and what stands in lookaheads after it, in UTF-16 units. */
  readonly extent: number;
  /** The shortest match, in characters. */
  readonly least: number;
  /** The characters with which a match, or what may become one, can begin. */
  readonly first: Characters;
  /** Whether a match depends on the character before it. */
  readonly hasLeftBorder: boolean;
  /** All that a match and its lookaheads can consist of. */
  readonly characters: Characters;
}

const ONCE: Quantifier = { min: 1, max: 1, lazy: "" };
const CLASS = /\[(?:\\[^]|[^\]\\])*\]/uy;
const ESCAPE = /\\(?:[pP]\{[^}]{1,60}\}|u\{[0-9a-fA-F]{1,6}\}|u[0-9a-fA-F]{4}|x[0-9a-fA-F]{2}|[^])/uy;
const COUNT = /\{(\d{1,5})(,(\d{0,5}))?\}/uy;
// What one of these takes may be a surrogate pair.
const WIDE = /^\[\^|\\[pPDWS]|\\u\{|[^\0-\uffff]|^\.$/u;

/**
 * @param name of the rule, for the message
 * @param flags of the rule: what its characters stand for
 * @throws ConfigInvalid naming the rule and the construct that is not allowed
 */
export function beginningsOf(name: string, pattern: string, flags = ""): Beginnings {
  const branches = parse(name, pattern, flags);
  const extent = extentOf(branches, false);
  if (extent === 0) throw refusal(name, "can match nothing at all");
  if (extent > MAX_EXTENT)
    throw refusal(name, `can be ${extent} characters long; ${MAX_EXTENT} is the limit`);
  const first = firstOf(branches, flags);
  return {
    prefix: prefixOf(branches, beginsSolid(branches)),
    extent,
    least: leastOf(branches),
    // A rule may begin with no character of ASCII at all; where there is another, all are looked for.
    first: isNone(first) ? ALL : first,
    hasLeftBorder: branches.some(hasBorder),
    characters: charactersOf(branches, flags),
  };
}

/**
 * For a rule that nobody has measured.
 * @throws ConfigInvalid when hostile text would cost too much
 */
export function refuseManyWays(name: string, pattern: string, flags = ""): void {
  const ways = mostWays(parse(name, pattern, flags), samplesFor(pattern), (source, character) =>
    takes(source, flags, character),
  );
  if (ways <= MAX_WAYS) return;
  throw refusal(
    name,
    `has repetitions next to each other that can share a text in ${ways} ways; ${MAX_WAYS} is the limit: set them apart by a character that none of them takes, or let them take less`,
  );
}

function refusal(name: string, why: string): ConfigInvalid {
  return new ConfigInvalid(`The redaction rule ${name} ${why}.`);
}

function parse(name: string, pattern: string, flags: string): Branches {
  let at = 0;
  const samples = samplesFor(pattern);

  const refuse = (what: string): never => {
    throw refusal(name, `has ${what} at character ${at}, which cannot be bounded in a stream`);
  };
  const take = (expression: RegExp): RegExpExecArray | null => {
    expression.lastIndex = at;
    const found = expression.exec(pattern);
    if (found) at += found[0].length;
    return found;
  };
  const skip = (text: string): boolean => {
    const isThere = pattern.startsWith(text, at);
    if (isThere) at += text.length;
    return isThere;
  };

  const branches = (isOuter: boolean): Branches => {
    const all: Item[][] = [[]];
    while (at < pattern.length && pattern[at] !== ")") {
      if (skip("|")) all.push([]);
      else all.at(-1)?.push(item(isOuter && all.at(-1)?.length === 0));
    }
    return all;
  };
  const body = (isOuter: boolean): Branches => {
    const inner = branches(isOuter);
    if (!skip(")")) refuse("a group without an end");
    return inner;
  };

  const item = (isFirst: boolean): Item => {
    const from = at;
    for (const open of ["(?=", "(?!"]) if (skip(open)) return { type: "ahead", open, body: body(false) };
    if (skip("(?<=") || skip("(?<!")) {
      if (!isFirst) refuse("a lookbehind that is not at its start");
      const inner = body(false);
      if (extentOf(inner, true) > CONTEXT) refuse(`a lookbehind of more than ${CONTEXT} characters`);
      return { type: "behind", source: pattern.slice(from, at) };
    }
    if (skip(String.raw`\b`) || skip(String.raw`\B`))
      return { type: "border", source: pattern.slice(from, at) };
    if (skip("(?:")) return grouped(isFirst);
    if (pattern.startsWith("(?", at)) refuse("a named group or a modifier");
    if (skip("(")) return grouped(isFirst);
    return { type: "atom", source: atom(), quantifier: quantifier() };
  };
  const grouped = (isFirst: boolean): Item => {
    const inner = body(isFirst);
    const found = quantifier();
    // Each way to share a text between the inner and the outer repetition would be tried.
    if (found.max > FEW && inner.some((one) => isAmbiguous(one, flags, samples)))
      refuse("a repetition of a repetition that no character sets apart");
    return { type: "group", body: inner, quantifier: found };
  };

  const atom = (): string => {
    const from = at;
    if ("^$".includes(pattern.charAt(at))) refuse(`the anchor ${pattern.charAt(at)}`);
    if ("*+?{".includes(pattern.charAt(at))) refuse("a repetition of nothing");
    if (/^\\(?:[1-9]|k)/.test(pattern.slice(at))) refuse("a back-reference");
    if (!take(CLASS) && !take(ESCAPE)) at += (pattern.codePointAt(at) ?? 0) > 0xffff ? 2 : 1;
    return pattern.slice(from, at);
  };
  const quantifier = (): Quantifier => {
    const bounds = bounded();
    return bounds === ONCE ? ONCE : { ...bounds, lazy: skip("?") ? "?" : "" };
  };
  const bounded = (): Quantifier => {
    if ("*+".includes(pattern[at] ?? " ")) refuse(`the unbounded repetition ${pattern.charAt(at)}`);
    if (skip("?")) return { min: 0, max: 1, lazy: "" };
    const count = take(COUNT);
    if (!count) return ONCE;
    if (count[2] !== undefined && count[3] === "") refuse(`the unbounded repetition ${count[0]}`);
    const min = Number(count[1]);
    return { min, max: Number(count[3] ?? min), lazy: "" };
  };

  const whole = branches(true);
  if (at < pattern.length) refuse("a parenthesis too many");
  return whole;
}

/** Whether a text of one character can be shared between repetitions of this sequence in many ways. */
function isAmbiguous(sequence: readonly Item[], flags: string, samples: readonly string[]): boolean {
  const atoms = sequence.flatMap(atomsIn);
  const open = atoms.filter(({ quantifier: { min, max } }) => max > 1 && min < max);
  const sure = atoms.filter(({ quantifier: { min } }) => min > 0);
  const takenBy = ({ source }: Atom): readonly string[] =>
    samples.filter((character) => takes(source, flags, character));
  const isApart = (one: Atom): boolean =>
    takenBy(one).every((character) => open.every(({ source }) => !takes(source, flags, character)));
  return open.length > 0 && !sure.some(isApart);
}

/** The atoms that stand in it once, not in a repetition or an alternative of its own. */
function atomsIn(item: Item): readonly Atom[] {
  if (item.type === "atom") return [item];
  if (item.type !== "group" || item.quantifier.max > 1 || item.quantifier.min === 0) return [];
  const [only = [], ...others] = item.body;
  return others.length === 0 ? only.flatMap(atomsIn) : [];
}

function charactersOf(branches: Branches, flags: string): Characters {
  const ofItem = (item: Item): Characters => {
    if (item.type === "atom") return asciiOf(item.source, flags);
    return item.type === "group" || item.type === "ahead" ? charactersOf(item.body, flags) : united([]);
  };
  return united(branches.flat().map(ofItem));
}

/** The first part that must be there, and all that may stand before it. */
function beginningOf(items: readonly Item[]): readonly Item[] {
  const solid = items.findIndex((item) => leastOf([[item]]) > 0);
  return solid < 0 ? items : items.slice(0, solid + 1);
}

/** Whether it may begin at a border. */
const hasBorder = (items: readonly Item[]): boolean =>
  beginningOf(items).some((item) =>
    item.type === "group" ? item.body.some(hasBorder) : item.type === "behind" || item.type === "border",
  );

function firstOf(branches: Branches, flags: string): Characters {
  const ofItem = (item: Item): Characters => {
    if (item.type === "atom") return asciiOf(item.source, flags);
    return item.type === "group" ? firstOf(item.body, flags) : united([]);
  };
  return united(branches.flatMap((items) => beginningOf(items).map(ofItem)));
}

const known = new Map<string, Characters>();

function asciiOf(source: string, flags: string): Characters {
  const key = `${flags}/${source}`;
  const found = known.get(key) ?? firstsOf(source, flags);
  known.set(key, found);
  return found;
}

function firstsOf(source: string, flags: string): Characters {
  try {
    return charactersAt(new RegExp(source, `${flags}uy`));
  } catch {
    return ALL; // no expression at all: whoever compiles the rule says so
  }
}

/** In characters, or (the default) in UTF-16 units. */
function extentOf(branches: Branches, inCharacters: boolean): number {
  return Math.max(
    ...branches.map((items) => items.reduce((sum, item) => sum + widthOf(item, inCharacters), 0)),
  );
}

function widthOf(item: Item, inCharacters: boolean): number {
  if (item.type === "behind" || item.type === "border") return 0;
  if (item.type === "ahead") return extentOf(item.body, inCharacters);
  if (item.type === "group") return item.quantifier.max * extentOf(item.body, inCharacters);
  return item.quantifier.max * (!inCharacters && WIDE.test(item.source) ? 2 : 1);
}

function leastOf(branches: Branches): number {
  const least = (item: Item): number => {
    if (item.type === "group") return item.quantifier.min * leastOf(item.body);
    return item.type === "atom" ? item.quantifier.min : 0;
  };
  return Math.min(...branches.map((items) => items.reduce((sum, item) => sum + least(item), 0)));
}

/**
 * Whether each match begins with a character that must be there. Its beginnings then begin with it too, which
 * lets the regular expression engine pass over all other places.
 */
function beginsSolid(branches: Branches): boolean {
  return branches.every((items) => {
    const first = items.find(({ type }) => type !== "behind" && type !== "border");
    if (first?.type === "group") return first.quantifier.min > 0 && beginsSolid(first.body);
    return first?.type === "atom" && first.quantifier.min > 0;
  });
}

/** `isSolid`: the first character cannot be the end of the text. */
function prefixOf(branches: Branches, isSolid: boolean): string {
  return branches
    .map((items) => {
      const first = isSolid ? items.findIndex(({ type }) => type === "atom" || type === "group") : -1;
      return items.map((item, index) => prefixOfItem(item, index === first)).join("");
    })
    .join("|");
}

function prefixOfItem(item: Item, isSolid: boolean): string {
  if (item.type === "behind") return item.source;
  if (item.type === "border") return `(?:${item.source}|$)`;
  if (item.type === "ahead") {
    const { open } = item;
    const now = `${open}${sourceOf(item.body)})`;
    // What the lookahead says is open while the text may still become what it looks for.
    return `(?:${now}|(?=(?:${prefixOf(item.body, false)})$)[^]*)`;
  }
  const { min, max, lazy } = item.quantifier;
  const one = item.type === "atom" ? item.source : prefixOf(item.body, false);
  const open = `(?:${one}|$)`;
  if (!isSolid) return open + counted(min, max, lazy);
  const solid = item.type === "atom" ? item.source : `(?:${prefixOf(item.body, true)})`;
  return max === 1 ? solid : `${solid}${open}${counted(min - 1, max - 1, lazy)}`;
}

function sourceOf(branches: Branches): string {
  return branches.map((items) => items.map(sourceOfItem).join("")).join("|");
}

function sourceOfItem(item: Item): string {
  if (item.type === "ahead") return `${item.open}${sourceOf(item.body)})`;
  if (item.type === "behind" || item.type === "border") return item.source;
  const { min, max, lazy } = item.quantifier;
  const one = item.type === "atom" ? item.source : `(?:${sourceOf(item.body)})`;
  return one + counted(min, max, lazy);
}

const counted = (min: number, max: number, lazy: string): string =>
  min === 1 && max === 1 ? "" : `{${min},${max}}${lazy}`;

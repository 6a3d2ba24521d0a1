// A rule says how one kind of personal data or secret looks; compiling it proves that a stream can follow it.
// A compiled rule looks at nothing but its match, the 40 characters to its left and its lookaheads.
import { ConfigInvalid } from "../../errors.ts";
import { asRead } from "./as-read.ts";
import { isInBase64 } from "./base64.ts";
import { behindOthers } from "./characters.ts";
import type { Characters } from "./characters.ts";
import { behindEscapes, withoutEscapes } from "./escapes.ts";
import { CONTEXT, beginningsOf, refuseManyWays } from "./prefix.ts";

export interface Rule {
  /** Names the placeholder: `[REDACTED_<kind>]`. */
  readonly kind: string;
  /** A bounded regular expression, read with the flag `u`. Lookbehinds stand at its start. */
  readonly pattern: string;
  readonly flags?: string;
  /** Only what this group matched is replaced. */
  readonly group?: number;
  /** Refuses a match; the search goes on one character after its start. `left`: up to 40 characters. */
  readonly accepts?: (match: string, left: string) => boolean;
  /** The parts of the match to be replaced, in order; undefined refuses it as `accepts` does. */
  readonly spansIn?: (match: string, left: string) => readonly Span[] | undefined;
  /** A match is the beginning of something longer: what follows is dropped too. */
  readonly opens?: Opening | readonly Opening[];
  /** Which of several. */
  readonly opensAs?: (match: string) => number;
  /** A cheap first look: no match in a text in which this is not found. */
  readonly needs?: RegExp;
}

/** UTF-16 units from the start of a match, `end` exclusive. */
export interface Span {
  readonly start: number;
  readonly end: number;
}

interface Opening {
  /** What ends it: bounded, and no two of it can overlap. */
  readonly until: string;
  /** What ends it where the text ends, if `until` is not found; may hold `$`. */
  readonly last?: string;
  /** Characters after which it ends in any case. */
  readonly most: number;
}

/** An operator's own rule. */
export interface Own {
  readonly kind: string;
  readonly pattern: string;
  readonly flags?: string;
  readonly group?: number;
}

/** Places in the text that was searched. */
export interface Match extends Span {
  readonly rule: CompiledRule;
  readonly masks: readonly Span[];
  readonly opens: CompiledOpening | undefined;
  /** Where the search for the rule's next match goes on. */
  readonly resume: number;
}

export interface CompiledOpening {
  readonly until: RegExp;
  readonly last: RegExp | undefined;
  readonly most: number;
  /** Units of dropped text that may be the beginning of its end. */
  readonly kept: number;
}

export interface CompiledRule {
  readonly kind: string;
  /** The longest match with its lookahead, in UTF-16 units; the shortest match, in characters. */
  readonly extent: number;
  readonly least: number;
  /** The characters with which a match, or what may become one, can begin. */
  readonly first: Characters;
  /**
   * The first match that starts at or after `from`.
   * @param hasEscapes whether the text may hold escapes: to look for them costs too much where there are none
   */
  next(text: string, from: number, hasEscapes: boolean): Match | undefined;
  /** The first place at or after `from` from which the text may still become a match; its length if none. */
  undecided(text: string, from: number, hasEscapes: boolean): number;
}

const KIND = /^[A-Z][A-Z0-9_]{0,23}$/;
/** A token of vault.ts as a bounded pattern: its kind and 16 letters. */
export const TOKEN_PATTERN = String.raw`\[[A-Z][A-Z0-9_]{0,23}:[a-z]{16}\]`;
// A placeholder, or a token in its place, perhaps in the quotes that it needs in JSON: what they say is no context of
// what follows.
const PLACEHOLDER = String.raw`(?:\[REDACTED_[A-Z0-9_]{1,24}\]|${TOKEN_PATTERN})`;
const GLUED = new RegExp(String.raw`${PLACEHOLDER}$|(\\{0,7}")${PLACEHOLDER}\1$`);
const OUT_OF_CONTEXT = new RegExp(String.raw`^.*(?:\[REDACTED(?:_[A-Z0-9_]{1,24})?\]|${TOKEN_PATTERN})`, "s");
const LONGEST_PLACEHOLDER = 41;

/** @throws ConfigInvalid when the rule is not bounded, or is no regular expression */
export function compileRule(rule: Rule): CompiledRule {
  const { kind, opens, needs } = rule;
  const { prefix, first, extent, least, hasLeftBorder, characters } = beginningsOf(
    kind,
    rule.pattern,
    rule.flags,
  );
  const ownFlags = rule.group === undefined ? "g" : "dg";
  const plain = regexOf(rule, rule.pattern, ownFlags);
  const escaped = regexOf(rule, behindEscapes(rule.pattern), ownFlags);
  if (rule.group !== undefined && !hasGroup(plain, rule.group)) {
    throw new ConfigInvalid(`The redaction rule ${kind} has no group ${rule.group}.`);
  }
  const plainBeginning = regexOf(rule, `(?:${prefix})$`, "g");
  const escapedBeginning = regexOf(rule, `(?:${behindEscapes(prefix)})$`, "g");
  const openings = [opens ?? []].flat().map(compileOpening);
  const compiled: CompiledRule = {
    kind,
    extent,
    least,
    first,
    next: (text, from, hasEscapes) => {
      if (needs && !isIn(needs, text, from)) return undefined;
      const regex = hasEscapes ? escaped : plain;
      regex.lastIndex = from;
      for (let found = regex.exec(text); found; found = regex.exec(text)) {
        const start = found.index;
        // Beside a placeholder stood something else once, so its border is none: redacting twice changes nothing.
        const masks = hasLeftBorder && isGlued(text, start) ? undefined : masksOf(rule, found);
        const end = start + found[0].length;
        if (masks) {
          const opening = openings[rule.opensAs?.(found[0]) ?? 0];
          return { rule: compiled, start, end, masks, opens: opening, resume: masks.at(-1)?.end ?? end };
        }
        regex.lastIndex = start + ((text.codePointAt(start) ?? 0) > 0xffff ? 2 : 1);
      }
      return undefined;
    },
    undecided: (text, from, hasEscapes) => {
      const place = behindOthers(text, from, characters);
      if (place === text.length) return place;
      const beginning = hasEscapes ? escapedBeginning : plainBeginning;
      beginning.lastIndex = place;
      return beginning.exec(text)?.index ?? text.length;
    },
  };
  return compiled;
}

/** @throws ConfigInvalid as compileRule does, and when hostile text would cost too much */
export function compileOwn(own: Own): CompiledRule {
  if (!KIND.test(own.kind)) {
    throw new ConfigInvalid(
      `The redaction rule ${JSON.stringify(own.kind)} needs a kind of 1 to 24 capital letters, digits and underscores.`,
    );
  }
  const pattern = asRead(own.pattern);
  const compiled = compileRule({ ...own, pattern });
  refuseManyWays(own.kind, pattern, own.flags);
  return compiled;
}

function hasGroup({ source, flags }: RegExp, group: number): boolean {
  const groups = new RegExp(`${source}|`, flags).exec("")?.length ?? 0;
  return Number.isInteger(group) && group >= 0 && group < groups;
}

function isGlued(text: string, start: number): boolean {
  const last = text[start - 1];
  if (last !== "]" && last !== '"') return false;
  return GLUED.test(text.slice(Math.max(0, start - CONTEXT - LONGEST_PLACEHOLDER), start));
}

function compileOpening({ until, last, most }: Opening): CompiledOpening {
  return {
    until: new RegExp(until, "gu"),
    last: last === undefined ? undefined : new RegExp(last, "gu"),
    most,
    // Its last character decides, so all others may be there already.
    kept: beginningsOf("END", until).extent - 1,
  };
}

function isIn(needed: RegExp, text: string, from: number): boolean {
  needed.lastIndex = from;
  return needed.test(text);
}

function regexOf({ kind, flags = "" }: Rule, source: string, own: string): RegExp {
  if (!/^[is]{0,2}$/.test(flags)) {
    throw new ConfigInvalid(`The redaction rule ${kind} has the flags ${flags}; only i and s are allowed.`);
  }
  try {
    return new RegExp(source, `${flags}${own}u`);
  } catch (error) {
    throw new ConfigInvalid(
      `The redaction rule ${kind} is no regular expression of JavaScript with the flag u.`,
      {
        cause: error,
      },
    );
  }
}

function masksOf(rule: Rule, found: RegExpExecArray): readonly Span[] | undefined {
  const start = found.index;
  const [match] = found;
  const left = leftOf(found.input, start);
  if (isInBase64(match, left)) return undefined;
  if (rule.accepts && !rule.accepts(match, left)) return undefined;
  if (rule.spansIn) {
    return rule.spansIn(match, left)?.map((span) => ({ start: start + span.start, end: start + span.end }));
  }
  const [from, to] =
    rule.group === undefined ? [start, start + match.length] : (found.indices?.[rule.group] ?? [0, 0]);
  const mask = betweenEscapes(found.input, from, to);
  return mask.start < mask.end ? [mask] : undefined;
}

/** Half an escape that stayed would escape the placeholder, or the quote behind it. */
function betweenEscapes(text: string, from: number, to: number): Span {
  let [start, end] = [from, to];
  while (end > start && text[end - 1] === "\\") end -= 1;
  if (text[start - 1] === "\\") start += /^\\*"/.exec(text.slice(start, end))?.[0].length ?? 0;
  return { start, end };
}

// A placeholder is shorter or longer than what it replaced: words beyond it may come near or go far, and a word
// glued to it was none.
function leftOf(text: string, start: number): string {
  const left = text.slice(Math.max(0, start - CONTEXT - LONGEST_PLACEHOLDER), start);
  return withoutEscapes(left.includes("]") ? left.replace(OUT_OF_CONTEXT, "_") : left).slice(-CONTEXT);
}

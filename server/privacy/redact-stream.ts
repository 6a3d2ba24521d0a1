// Redacts a text that comes in pieces. What it tells is, in sum, the same for every way to cut the text:
// a piece is told only when no further text can make it part of a finding.
import { Invisible } from "./invisible.ts";
import { isJsonNumber, lastQuote } from "./json-number.ts";
import { charactersIn, haveCommon } from "./rules/characters.ts";
import { mayEscape } from "./rules/escapes.ts";
import { CONTEXT } from "./rules/prefix.ts";
import type { CompiledOpening, CompiledRule, Match } from "./rules/rule.ts";

export interface RedactionStream {
  /** Takes the next piece; returns what can be told by now. `isFinal`: nothing more comes, tell the rest. */
  push(piece: string, isFinal?: boolean): string;
  /** Characters that are held back. */
  readonly held: number;
}

/** More than this is never held: it is told as one placeholder. */
const MAX_HELD = 4096;
/** What no rule had decided; the kind that is reported for it. */
const UNDECIDED = "UNDECIDED";
// A character may be two units, and one more for the half that a cut may leave. Enough for a placeholder too.
const KEPT = 2 * CONTEXT + 1;

/** Text that is being dropped, up to its end or until so many characters are gone. */
interface Dropping {
  readonly opens: CompiledOpening;
  left: number;
  /** Up to here it is dropped in any case: a finding reaches so far. */
  atLeastTo: number;
}

/** What stands in the place of a finding: a placeholder, or whatever may be kept of it. */
export type Replace = (kind: string, found: string) => string;

/** @param onFound told the kind of each finding */
export function redactionStream(
  rules: readonly CompiledRule[],
  onFound: (kind: string) => void = () => {},
  replace: Replace = placeholderOf,
): RedactionStream {
  return new Stream(rules, onFound, replace);
}

export const placeholderOf: Replace = (kind) => `[REDACTED_${kind}]`;

class Stream implements RedactionStream {
  readonly #rules: readonly CompiledRule[];
  readonly #onFound: (kind: string) => void;
  readonly #replace: Replace;
  readonly #invisible = new Invisible();
  readonly #matches: Matches;
  /** As rules read it. What is before #base is told, and kept for what stands to its right. */
  #text = "";
  #base = 0;
  #dropping: Dropping | undefined;
  /** For each rule: before this place of #text nothing can become a match of it, whatever comes. */
  readonly #decided: number[];
  /** Up to here it is known. */
  #seen = 0;
  /** The last quote of what was told: that of a JSON which is being told. */
  #quote = '"';

  constructor(rules: readonly CompiledRule[], onFound: (kind: string) => void, replace: Replace) {
    this.#rules = rules;
    this.#onFound = onFound;
    this.#replace = replace;
    this.#matches = new Matches(rules);
    this.#decided = rules.map(() => 0);
  }

  get held(): number {
    return this.#text.length - this.#base + this.#invisible.length;
  }

  push(piece: string, isFinal = false): string {
    this.#text += this.#invisible.take(piece, this.#text.length, isFinal);
    const text = this.#text;
    this.#matches.begin(text, this.#base);
    let told = "";
    let undecided = -1;
    do {
      if (!this.#isDropped(text, isFinal)) break;
      if (undecided < this.#base) undecided = isFinal ? text.length : this.#firstUndecided(text);
      told += this.#tell(text, undecided, isFinal);
    } while (this.#dropping);
    return told + this.#settle(isFinal);
  }

  /** Drops what is to be dropped; false when its end is not there yet. */
  #isDropped(text: string, isFinal: boolean): boolean {
    if (!this.#dropping) return true;
    const { opens, left, atLeastTo } = this.#dropping;
    const limit = borderAt(text, this.#base + left);
    const end = endOf(opens, text, this.#base, isFinal);
    let to = end !== undefined && end <= limit ? end : limit;
    const isOver = to <= text.length;
    if (!isOver) to = isFinal ? text.length : Math.max(this.#base, text.length - opens.kept);
    this.#dropping = isOver || isFinal ? undefined : { opens, left: left - (to - this.#base), atLeastTo };
    if (isOver) to = Math.max(to, atLeastTo);
    this.#base = to;
    this.#invisible.drop(to);
    if (isOver) this.#matches.skip(text, to);
    return isOver;
  }

  #firstUndecided(text: string): number {
    let first = text.length;
    const present = charactersIn(text, this.#base);
    const added = charactersIn(text, Math.max(this.#base, this.#seen));
    const { hasEscapes } = this.#matches;
    for (const [index, rule] of this.#rules.entries()) {
      const decided = this.#decided[index] ?? 0;
      const from = Math.max(this.#base, text.length - rule.extent, decided);
      if (from >= first) continue;
      const mayBegin = haveCommon(rule.first, decided < this.#seen ? present : added);
      const place = mayBegin ? rule.undecided(text, borderAt(text, from), hasEscapes) : text.length;
      this.#decided[index] = place;
      first = Math.min(first, place);
    }
    this.#seen = text.length;
    return borderAt(text, first);
  }

  /** Tells the text up to `undecided`, or up to a finding that opens something to be dropped. */
  #tell(text: string, undecided: number, isFinal: boolean): string {
    let cut = undecided;
    let told = "";
    for (let chain = this.#matches.chain(cut); chain.length > 0; chain = this.#matches.chain(cut)) {
      cut = decidedIn(chain, cut);
      for (const finding of findingsIn(chain, cut)) {
        told += this.#woven(text, finding.start, true) + this.#placeholder(finding, text);
        this.#invisible.drop(finding.end);
        this.#base = finding.end;
        const { opens, end } = finding.opening ?? {};
        if (!opens || end === undefined) continue;
        this.#base = end;
        this.#dropping = { opens, left: opens.most, atLeastTo: finding.end };
        return told;
      }
    }
    told += this.#woven(text, cut, isFinal);
    this.#base = cut;
    return told;
  }

  #woven(text: string, to: number, isLast: boolean): string {
    this.#quote = lastQuote(text, this.#base, to) ?? this.#quote;
    return this.#invisible.weave(text, this.#base, to, isLast);
  }

  #placeholder({ kind, start, end }: Finding, text: string): string {
    this.#onFound(kind);
    const found = text.slice(start, end);
    const left = text.slice(Math.max(0, start - CONTEXT), start);
    const quote = isJsonNumber(found, left) ? this.#quote : "";
    return quote + this.#replace(kind, found) + quote;
  }

  #settle(isFinal: boolean): string {
    let told = "";
    if (this.held > MAX_HELD && !this.#dropping) {
      this.#onFound(UNDECIDED);
      told = "[REDACTED]";
      this.#base = this.#text.length;
      this.#invisible.drop(this.#base + 1);
    }
    const gone = isFinal ? this.#text.length : Math.max(0, this.#base - KEPT);
    this.#text = this.#text.slice(gone);
    this.#seen -= gone;
    for (const [index, decided] of this.#decided.entries()) this.#decided[index] = decided - gone;
    this.#base -= isFinal ? this.#base : gone;
    this.#invisible.move(gone);
    if (this.#dropping) this.#dropping.atLeastTo -= gone;
    return told;
  }
}

interface Finding {
  readonly kind: string;
  readonly start: number;
  end: number;
  opening: Match | undefined;
}

/** The matches of all rules in one text, from left to right, searched for only as far as they are asked for. */
class Matches {
  readonly #rules: readonly CompiledRule[];
  readonly #next: (Match | undefined)[] = [];
  /** Where the search for each next match began. */
  readonly #from: number[] = [];
  #text = "";
  hasEscapes = false;

  constructor(rules: readonly CompiledRule[]) {
    this.#rules = rules;
  }

  begin(text: string, base: number): void {
    this.#text = text;
    this.hasEscapes = mayEscape(text);
    const present = charactersIn(text, base);
    for (const [index, { first, least }] of this.#rules.entries()) {
      this.#next[index] = undefined;
      this.#from[index] = base;
      if (base + least <= text.length && haveCommon(first, present)) this.#search(index, base);
    }
  }

  /** Searches from `base`, which is further on, as if the text began there. */
  skip(text: string, base: number): void {
    this.#text = text;
    for (const [index, next] of this.#next.entries()) {
      const isSame = (this.#from[index] ?? 0) <= base && (!next || next.start >= base);
      if (!isSame) this.#search(index, base);
    }
  }

  /** The next matches that start before `cut` and hang together by overlapping, in order of their starts. */
  chain(cut: number): readonly Match[] {
    const chain: Match[] = [];
    let end = cut;
    for (let index = this.#first(cut); index >= 0; index = this.#first(Math.min(cut, end))) {
      const match = this.#next[index];
      if (!match) break;
      end = chain.length === 0 ? match.end : Math.max(end, match.end);
      chain.push(match);
      this.#search(index, match.resume);
    }
    return chain;
  }

  /** The rule whose next match starts first, and before `limit`; of two the earlier rule; -1 for none. */
  #first(limit: number): number {
    let best = -1;
    let start = limit;
    for (let index = 0; index < this.#next.length; index += 1) {
      const match = this.#next[index];
      if (match && match.start < start) [best, start] = [index, match.start];
    }
    return best;
  }

  #search(index: number, from: number): void {
    this.#from[index] = from;
    this.#next[index] = this.#rules[index]?.next(this.#text, from, this.hasEscapes);
  }
}

/** The last place at or before `cut` that no match of the chain straddles. */
function decidedIn(chain: readonly Match[], cut: number): number {
  // The whole match counts, not the part that is replaced: a label told alone would hide its value from the rule.
  return chain.reduceRight((place, { start, end }) => (start < place && place < end ? start : place), cut);
}

/** What is to be replaced before `cut`: overlapping masks are one finding, of the first one's kind. */
function findingsIn(chain: readonly Match[], cut: number): readonly Finding[] {
  const findings: Finding[] = [];
  const masks = chain
    .filter(({ end }) => end <= cut)
    .flatMap((match) => match.masks.map(({ start, end }) => ({ match, start, end })))
    .toSorted((a, b) => a.start - b.start);
  for (const { match, start, end } of masks) {
    const last = findings.at(-1);
    const opening = match.opens && match;
    // What follows an opening is dropped to its end, and to the end of all that hangs together with it.
    if (last && (start < last.end || last.opening)) {
      last.end = Math.max(last.end, end);
      if (opening && opening.end > (last.opening?.end ?? 0)) last.opening = opening;
    } else findings.push({ kind: match.rule.kind, start, end, opening });
  }
  return findings;
}

function endOf(opens: CompiledOpening, text: string, from: number, isFinal: boolean): number | undefined {
  const end = endAt(opens.until, text, from);
  return end === undefined && isFinal && opens.last ? endAt(opens.last, text, from) : end;
}

function endAt(until: RegExp, text: string, from: number): number | undefined {
  until.lastIndex = from;
  const found = until.exec(text);
  return found ? found.index + found[0].length : undefined;
}

/** `place`, or the one before it when it would cut a surrogate pair in two. */
function borderAt(text: string, place: number): number {
  const isInPair =
    (text.charCodeAt(place - 1) & 0xfc00) === 0xd800 && (text.charCodeAt(place) & 0xfc00) === 0xdc00;
  return isInPair ? place - 1 : place;
}

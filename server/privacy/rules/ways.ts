// In how many ways a pattern can share out a text of one character among repetitions that stand next to each other. A
// regular expression tries all of them where it finds nothing in the end, so they are what hostile text costs.
import type { Branches, Item } from "./pattern-parts.ts";

interface Ways {
  /** To match such a text with all of it; 0 if something in it is another character. */
  readonly whole: number;
  /** With the part before the first other character, and with the part behind the last. */
  readonly lead: number;
  readonly tail: number;
  /** The most of any part. */
  readonly most: number;
}

/**
 * @param samples the characters to try
 * @param matches whether an atom matches one of them
 */
export function mostWays(
  branches: Branches,
  samples: readonly string[],
  matches: (atom: string, character: string) => boolean,
): number {
  const one: Ways = { whole: 1, lead: 1, tail: 1, most: 1 };

  const ofItem = (item: Item, character: string): Ways => {
    if (item.type === "behind" || item.type === "border") return one;
    if (item.type === "ahead") return { ...one, most: ofBranches(item.body, character).most };
    const { min, max } = item.quantifier;
    if (item.type === "group") return repeated(ofBranches(item.body, character), min, max);
    return repeated(matches(item.source, character) ? one : { ...one, whole: 0 }, min, max);
  };
  const ofBranches = (all: Branches, character: string): Ways =>
    all
      .map((items) => items.map((item) => ofItem(item, character)).reduce(joined, one))
      .reduce((a, b) => ({
        whole: a.whole + b.whole,
        lead: Math.max(a.lead, b.lead),
        tail: Math.max(a.tail, b.tail),
        most: Math.max(a.most, b.most),
      }));

  return Math.max(...samples.map((character) => ofBranches(branches, character).most));
}

function joined(a: Ways, b: Ways): Ways {
  return {
    whole: a.whole * b.whole,
    lead: a.whole > 0 ? Math.max(a.lead, a.whole * b.lead) : a.lead,
    tail: b.whole > 0 ? Math.max(b.tail, a.tail * b.whole) : b.tail,
    most: Math.max(a.most, b.most, a.tail * b.lead),
  };
}

function repeated({ whole, lead, tail, most }: Ways, min: number, max: number): Ways {
  if (whole === 0) {
    const border = max > 1 ? tail * lead : 1;
    return { whole: min === 0 ? 1 : 0, lead, tail, most: Math.max(most, border) };
  }
  const all = whole === 1 ? max - min + 1 : whole ** max + (min === 0 ? 1 : 0);
  return { whole: all, lead: all, tail: all, most: Math.max(most, all) };
}

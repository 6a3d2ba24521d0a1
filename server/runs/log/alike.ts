// How a text differs from another one that is mostly the same, as a state from the one a superstep before.
// Made for JSON documents of which a few fields change or grow: found from the front to the back, in one pass.

/** A text, told by another one. Positions and lengths are in UTF-16 units. */
export interface Difference {
  /** For each piece that both have: where it begins in the other text, its length, how much of `added` follows it. */
  readonly pieces: readonly number[];
  /** What the other text lacks. */
  readonly added: string;
}

// Whole blocks are compared much faster than characters.
const BLOCK = 4096;
// Texts count as the same again where so much is: less is found in many places.
const ANCHOR = 64;
const MOST_PIECES = 64;

/** What makes `text` of `base`; undefined if that takes more than `mostAdded` new characters, or too many pieces. */
export function differenceOf(base: string, text: string, mostAdded: number): Difference | undefined {
  const pieces: number[] = [];
  let added = "";
  for (let [from, at] = [0, 0]; at < text.length;) {
    let same = sameLength(base, from, text, at);
    // Neither piece may end with one half of a character: such a text cannot be stored.
    if (same > 0 && isFirstHalf(text, at + same - 1)) same -= 1;
    const next = nextSame(base, from + same, text, at + same);
    if (isFirstHalf(text, next.at - 1)) {
      next.at += 1;
      next.from += 1;
    }
    added += text.slice(at + same, next.at);
    pieces.push(from, same, next.at - at - same);
    if (added.length > mostAdded || pieces.length > 3 * MOST_PIECES) return undefined;
    ({ from, at } = next);
  }
  return { pieces, added };
}

/** The text of which `differenceOf` told the difference. */
export function patched(base: string, { pieces, added }: Difference): string {
  let text = "";
  let used = 0;
  for (let index = 0; index < pieces.length; index += 3) {
    const [from = 0, same = 0, fresh = 0] = pieces.slice(index, index + 3);
    text += base.slice(from, from + same) + added.slice(used, used + fresh);
    used += fresh;
  }
  return text;
}

/** How many characters are the same from there on. */
function sameLength(base: string, from: number, text: string, at: number): number {
  const most = Math.min(base.length - from, text.length - at);
  let same = 0;
  while (
    same + BLOCK <= most &&
    base.slice(from + same, from + same + BLOCK) === text.slice(at + same, at + same + BLOCK)
  )
    same += BLOCK;
  while (same < most && base.charCodeAt(from + same) === text.charCodeAt(at + same)) same += 1;
  return same;
}

/**
 * Where both are the same again, at or behind these places: where the least is passed over, as the same words may stand
 * elsewhere too. The end of both if nowhere.
 */
function nextSame(base: string, from: number, text: string, at: number): { from: number; at: number } {
  let next = { from: base.length, at: text.length };
  let least = Infinity;
  for (let gap = 0; gap < least && at + gap + ANCHOR <= text.length; gap = gap * 2 || ANCHOR / 4) {
    const found = base.indexOf(text.slice(at + gap, at + gap + ANCHOR), from);
    const passed = found - from + gap;
    if (found === -1 || passed >= least) continue;
    least = passed;
    next = { from: found, at: at + gap };
  }
  while (
    next.at > at &&
    next.from > from &&
    next.at < text.length &&
    base.charCodeAt(next.from - 1) === text.charCodeAt(next.at - 1)
  )
    next = { from: next.from - 1, at: next.at - 1 };
  return next;
}

const isFirstHalf = (text: string, index: number): boolean => (text.charCodeAt(index) & 0xfc00) === 0xd800;

// Sets of characters, to pass over rules that cannot begin in a short text: most pieces of a stream are words, and
// most rules begin with a digit. Only ASCII is told apart; any other character counts as all of them.

/** Four times 32 codes. */
export type Characters = readonly [number, number, number, number];

export const ALL: Characters = [-1, -1, -1, -1];
/** In a longer text most of them are. */
const LONGEST = 80;

/** The characters of `text` from `from` on. */
export function charactersIn(text: string, from: number): Characters {
  return text.length - from > LONGEST ? ALL : setOf(text, from);
}

export const haveCommon = (a: Characters, b: Characters): boolean =>
  ((a[0] & b[0]) | (a[1] & b[1]) | (a[2] & b[2]) | (a[3] & b[3])) !== 0;

export const isNone = (set: Characters): boolean => !haveCommon(set, ALL);

export const united = (sets: readonly Characters[]): Characters =>
  sets.reduce<Characters>((a, b) => [a[0] | b[0], a[1] | b[1], a[2] | b[2], a[3] | b[3]], [0, 0, 0, 0]);

/** The place in `text` behind the last character that is not one of these; not before `from`. */
export function behindOthers(text: string, from: number, characters: Characters): number {
  let at = text.length;
  for (; at > from; at -= 1) {
    const code = text.charCodeAt(at - 1);
    // The index is 0 to 3.
    if (code < 128 && ((characters[(code >> 5) as 0 | 1 | 2 | 3] >>> (code & 31)) & 1) === 0) break;
  }
  return at;
}

/** Those at which `beginning`, a sticky expression, matches something. */
export function charactersAt(beginning: RegExp): Characters {
  const isFirst = (character: string): boolean => {
    beginning.lastIndex = 0;
    return (beginning.exec(character)?.[0] ?? "") !== "";
  };
  const all = Array.from({ length: 128 }, (_, code) => String.fromCharCode(code));
  return setOf(all.filter(isFirst).join(""), 0);
}

function setOf(text: string, from: number): Characters {
  const set: [number, number, number, number] = [0, 0, 0, 0];
  for (let at = from; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code > 127) return ALL;
    // The index is 0 to 3.
    set[(code >> 5) as 0 | 1 | 2 | 3] |= 1 << (code & 31);
  }
  return set;
}

// One byte-pair encoding: text to token count, equal to tiktoken's `encode_ordinary(text).length`.
// Merging keeps the pairs in a heap, so a piece of n bytes costs O(n log n); the usual scan for the least
// pair costs O(n²), which is 25 s for 300,000 equal letters. Runs in a worker: loading takes 150 ms.
import { createRequire } from "node:module";

export type Encoding = "o200k_base" | "cl100k_base";

interface Table {
  readonly pieces: RegExp;
  /** Token bytes, as a latin1 string, to rank. */
  readonly ranks: ReadonlyMap<string, number>;
  readonly longest: number;
  readonly counted: Map<string, number>;
}

// Rust's white space. JavaScript's `\s` also holds U+FEFF and lacks U+0085.
const SPACE = String.raw`\t\n\v\f\r \u0085\u00a0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000`;
// Letters, marks and digits of Unicode 17, which JavaScript knows and tiktoken 1.0.22 (Unicode 16) does not: found by
// comparing the two on every code point. To tiktoken they are nothing, which no code point that will ever mean anything is.
const NEWER =
  String.raw`\u{88f}\u{c5c}\u{cdc}\u{1acf}-\u{1add}\u{1ae0}-\u{1aeb}\u{a7ce}-\u{a7cf}\u{a7d2}` +
  String.raw`\u{a7d4}\u{a7f1}\u{10940}-\u{10959}\u{10ec5}-\u{10ec7}\u{10efa}-\u{10efb}` +
  String.raw`\u{11b60}-\u{11b67}\u{11db0}-\u{11ddb}\u{11de0}-\u{11de9}\u{16ea0}-\u{16eb8}` +
  String.raw`\u{16ebb}-\u{16ed3}\u{16ff2}-\u{16ff6}\u{187f8}-\u{187ff}\u{18d09}-\u{18d1e}` +
  String.raw`\u{18d80}-\u{18df2}\u{1e6c0}-\u{1e6de}\u{1e6e0}-\u{1e6f5}\u{1e6fe}-\u{1e6ff}` +
  String.raw`\u{2b73a}-\u{2b73f}\u{2cea2}-\u{2cead}\u{323b0}-\u{33479}`;
const newer = new RegExp(`[${NEWER}]`, "u");
const allNewer = new RegExp(newer, "gu");
const SHORT_PIECE = 64;
// Fewer than a language has words would be forgotten again and again: with 50,000 counting is 2.5 times slower.
const MAX_SHORT_PIECES = 150_000;
const NONE = -1;
/** A heap key is rank · 2³² + position: below 2⁵³ for every rank, so one number orders by both. */
const POSITIONS = 2 ** 32;

const require = createRequire(import.meta.url);
const tables = new Map<Encoding, Table>();

/** Exact number of tokens; special tokens in the text count as ordinary text. */
export function countWith(encoding: Encoding, text: string): number {
  const table = tables.get(encoding) ?? load(encoding);
  let count = 0;
  // A lone surrogate reaches every provider as U+FFFD: UTF-8 cannot carry it.
  for (const piece of piecesOf(table, text.toWellFormed())) count += countPiece(table, piece);
  return count;
}

function piecesOf({ pieces }: Table, text: string): readonly string[] {
  if (!newer.test(text)) return text.match(pieces) ?? [];
  const known = text.replaceAll(allNewer, (one) => (one.length === 1 ? "\uFDD0" : "\u{1FFFE}"));
  return Array.from(known.matchAll(pieces), ({ 0: { length }, index }) => text.slice(index, index + length));
}

function load(encoding: Encoding): Table {
  // The shape of the files in tiktoken/encoders; the exact version is pinned in package.json.
  const file = require(`tiktoken/encoders/${encoding}.json`) as { pat_str: string; bpe_ranks: string };
  const ranks = new Map<string, number>();
  let longest = 0;
  for (const line of file.bpe_ranks.split("\n")) {
    const [, first, ...tokens] = line.split(" ");
    for (const [offset, token] of tokens.entries()) {
      const bytes = Buffer.from(token, "base64").toString("latin1");
      ranks.set(bytes, Number(first) + offset);
      longest = Math.max(longest, bytes.length);
    }
  }
  const table = { pieces: new RegExp(rustSpaces(file.pat_str), "gu"), ranks, longest, counted: new Map() };
  tables.set(encoding, table);
  return table;
}

/** Rewrites `\s` and `\S`, inside and outside of brackets, to Rust's white space. */
function rustSpaces(pattern: string): string {
  let inBrackets = false;
  return pattern.replaceAll(/\\?./gsu, (part) => {
    if (part === "[" || part === "]") inBrackets = part === "[";
    if (part === String.raw`\s`) return inBrackets ? SPACE : `[${SPACE}]`;
    return part === String.raw`\S` ? `[^${SPACE}]` : part;
  });
}

function countPiece(table: Table, piece: string): number {
  if (piece.length >= SHORT_PIECE) return countBytes(table, bytesOf(piece));
  const known = table.counted.get(piece);
  if (known !== undefined) return known;
  const count = countBytes(table, bytesOf(piece));
  if (table.counted.size >= MAX_SHORT_PIECES) table.counted.clear();
  table.counted.set(piece, count);
  return count;
}

const bytesOf = (piece: string): string => Buffer.from(piece, "utf8").toString("latin1");

function countBytes(table: Table, bytes: string): number {
  return table.ranks.has(bytes) ? 1 : mergeAll(table, bytes);
}

/** Merges the pair of least rank (leftmost first) until none is left: the same merges as tiktoken's. */
function mergeAll({ ranks, longest }: Table, bytes: string): number {
  const size = bytes.length;
  const next = Int32Array.from({ length: size }, (_, index) => index + 1);
  const previous = Int32Array.from({ length: size }, (_, index) => index - 1);
  /** Rank of the pair that starts here, NONE if it is no token or the start was merged away. */
  const pair = new Int32Array(size).fill(NONE);
  const heap = new Heap(size);
  const offer = (start: number): void => {
    const right = next[start] ?? size;
    const end = right < size ? (next[right] ?? size) : NONE;
    const rank = end - start > longest || end === NONE ? undefined : ranks.get(bytes.slice(start, end));
    pair[start] = rank ?? NONE;
    if (rank !== undefined) heap.push(rank * POSITIONS + start);
  };
  for (let start = 0; start < size; start += 1) offer(start);
  let count = size;
  for (let key = heap.pop(); key !== undefined; key = heap.pop()) {
    const start = key % POSITIONS;
    // A stale key: equal rank means equal bytes, so a key that still agrees is never stale.
    if (pair[start] !== (key - start) / POSITIONS) continue;
    const absorbed = next[start] ?? size;
    const after = next[absorbed] ?? size;
    pair[absorbed] = NONE;
    next[start] = after;
    if (after < size) previous[after] = start;
    count -= 1;
    offer(start);
    const before = previous[start] ?? NONE;
    if (before !== NONE) offer(before);
  }
  return count;
}

/** Least number first. */
class Heap {
  #keys: Float64Array;
  #size = 0;

  constructor(capacity: number) {
    this.#keys = new Float64Array(Math.max(capacity, 4));
  }

  push(key: number): void {
    if (this.#size === this.#keys.length) {
      const larger = new Float64Array(this.#keys.length * 2);
      larger.set(this.#keys);
      this.#keys = larger;
    }
    const keys = this.#keys;
    let at = this.#size;
    this.#size += 1;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      const above = keys[parent] ?? 0;
      if (above <= key) break;
      keys[at] = above;
      at = parent;
    }
    keys[at] = key;
  }

  pop(): number | undefined {
    if (this.#size === 0) return undefined;
    const keys = this.#keys;
    const least = keys[0];
    this.#size -= 1;
    const key = keys[this.#size] ?? 0;
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && (keys[child + 1] ?? 0) < (keys[child] ?? 0)) child += 1;
      const below = keys[child] ?? 0;
      if (key <= below) break;
      keys[at] = below;
      at = child;
    }
    keys[at] = key;
    return least;
  }
}

// What was passed on of an answer, in one piece of memory: hundreds of small pieces for each answer under way would have
// to be gone through by every collection of garbage, and all streams wait for that.
const FIRST_BYTES = 16_384;

/** What was pushed: all of it up to twice `most` bytes, of more the last `most` at least. */
export class Kept {
  readonly #most: number;
  #memory = new Uint8Array(FIRST_BYTES);
  #size = 0;
  #isTail = false;

  constructor(most: number) {
    this.#most = most;
  }

  /** Whether the beginning is gone. */
  get isTail(): boolean {
    return this.#isTail;
  }

  /** A piece is kept whole. */
  push(piece: Uint8Array): void {
    if (this.#size + piece.length > this.#memory.length) this.#makeRoom(piece.length);
    this.#memory.set(piece, this.#size);
    this.#size += piece.length;
  }

  /** Stays as it is, whatever is pushed later. */
  bytes(): Uint8Array {
    return this.#memory.subarray(0, this.#size);
  }

  #makeRoom(bytes: number): void {
    const all = this.bytes();
    const isTooMuch = all.length + bytes > 2 * this.#most;
    const rest = isTooMuch ? all.subarray(Math.max(0, all.length + bytes - this.#most)) : all;
    this.#isTail ||= rest.length < all.length;
    const roomy = Math.min(2 * this.#memory.length, 2 * this.#most);
    // New memory, and never moved within the old one: somebody may still read that.
    this.#memory = new Uint8Array(Math.max(roomy, rest.length + bytes));
    this.#memory.set(rest);
    this.#size = rest.length;
  }
}

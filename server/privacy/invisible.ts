// What rules do not read of a text. They read it without characters that nobody sees, and with a plain one for each that
// only looks like it or is written by its number; what stood there is put back around findings.
import { DISGUISED, plainOf, unfinishedIn } from "./disguises.ts";

/** More backslashes than an escape has. */
const ESCAPED = "\\".repeat(16);

/** What rules do not read, and the place of the visible text at which it stood. */
interface Run {
  at: number;
  readonly text: string;
  /** How many characters of the visible text stand for it: none, or one. */
  readonly plain: 0 | 1;
}

/** What rules do not read of a text, as far as it is not told yet. */
export class Invisible {
  #runs: Run[] = [];
  /** Those before it are told. */
  #first = 0;
  #length = 0;
  /** The beginning of a character that the next piece may finish. */
  #open = "";
  /** Whether what was taken before it ends with a backslash. */
  #isEscaped = false;

  /** How many characters of the text are here only. */
  get length(): number {
    return this.#length + this.#open.length;
  }

  /** Takes `piece` apart. @param at where its visible part will begin */
  take(piece: string, at: number, isFinal: boolean): string {
    const before = this.#isEscaped ? ESCAPED : "";
    const all = before + this.#open + piece;
    const end = isFinal ? all.length : unfinishedIn(all);
    this.#open = all.slice(end);
    const taken = all.slice(0, end);
    this.#isEscaped = !isFinal && taken.endsWith("\\");
    return this.#apart(taken, at - before.length).slice(before.length);
  }

  #apart(given: string, at: number): string {
    let removed = 0;
    return given.replace(DISGUISED, (text: string, index: number) => {
      const seen = plainOf(text);
      const plain = seen === "" ? 0 : 1;
      this.#runs.push({ at: at + index - removed, text, plain });
      removed += text.length - plain;
      this.#length += text.length - plain;
      return seen;
    });
  }

  /** The part of `visible` from `from` to `to`, with what stood before its characters and, `isLast`, after it. */
  weave(visible: string, from: number, to: number, isLast: boolean): string {
    let woven = "";
    let at = from;
    for (let run = this.#next(to, isLast); run; run = this.#next(to, isLast)) {
      const place = Math.max(at, run.at);
      woven += visible.slice(at, place) + run.text;
      at = place + run.plain;
    }
    return woven + visible.slice(at, to);
  }

  /** Forgets what stood before `to`. */
  drop(to: number): void {
    while (this.#next(to, false));
  }

  /** The visible text has lost its first `by` characters. */
  move(by: number): void {
    if (this.#runs.length === 0) return;
    this.#runs = this.#runs.slice(this.#first);
    this.#first = 0;
    for (const run of this.#runs) run.at -= by;
  }

  #next(to: number, isLast: boolean): Run | undefined {
    const run = this.#runs[this.#first];
    if (!run || run.at > to || (run.at === to && (!isLast || run.plain === 1))) return undefined;
    this.#first += 1;
    this.#length -= run.text.length - run.plain;
    return run;
  }
}

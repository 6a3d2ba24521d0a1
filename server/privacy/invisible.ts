// Characters that hide a value from a rule. Nobody sees some of them: zero-width ones, soft hyphens, marks of direction.
// Others look like one that rules know: spaces that do not break, dashes, letters and digits in full width. Rules read
// the text without the former and with the latter made plain; what stood there is put back around findings.
// Both are within the first 65,536 characters, so that a text is as long with plain ones.
const HIDDEN = String.raw`[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]+`;
const SPACE = String.raw`\u00a0\u2000-\u200a\u202f\u205f\u3000`;
const DASH = String.raw`\u2010-\u2015\u2212\ufe58\ufe63`;
const FULL_WIDTH = String.raw`\uff01-\uff5e`;
const UNUSUAL = new RegExp(`${HIDDEN}|[${SPACE}${DASH}${FULL_WIDTH}]`, "g");
const IS_SPACE = new RegExp(`[${SPACE}]`);
const IS_FULL_WIDTH = new RegExp(`[${FULL_WIDTH}]`);
const IS_DASH = new RegExp(`[${DASH}]`);
const FULL_WIDTH_TO_PLAIN = 0xfee0;

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
  length = 0;

  /** Takes `piece` apart. @param at where its visible part will begin */
  take(piece: string, at: number): string {
    let removed = 0;
    return piece.replace(UNUSUAL, (text: string, index: number) => {
      const seen = plainOf(text);
      const plain = seen === "" ? 0 : 1;
      this.#runs.push({ at: at + index - removed, text, plain });
      removed += text.length - plain;
      this.length += text.length - plain;
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
    this.length -= run.text.length - run.plain;
    return run;
  }
}

function plainOf(text: string): string {
  if (IS_SPACE.test(text)) return " ";
  if (IS_DASH.test(text)) return "-";
  return IS_FULL_WIDTH.test(text) ? String.fromCharCode(text.charCodeAt(0) - FULL_WIDTH_TO_PLAIN) : "";
}

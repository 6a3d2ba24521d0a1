// Characters that nobody sees and that hide a value from a rule: zero-width ones, soft hyphens, marks of
// direction. Rules read the text without them; what stood between visible characters is put back around findings.
const HIDDEN = /[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]+/g;

/** Invisible characters, and the place in the visible text before which they stood. */
interface Run {
  at: number;
  readonly text: string;
}

/** The invisible characters of a text, as far as it is not told yet. */
export class Invisible {
  #runs: Run[] = [];
  length = 0;

  /** Takes `piece` apart. @param at where its visible part will begin */
  take(piece: string, at: number): string {
    let removed = 0;
    return piece.replace(HIDDEN, (text: string, index: number) => {
      this.#runs.push({ at: at + index - removed, text });
      removed += text.length;
      this.length += text.length;
      return "";
    });
  }

  /** The part of `visible` from `from` to `to`, with what stood before its characters and, `isLast`, after it. */
  weave(visible: string, from: number, to: number, isLast: boolean): string {
    let woven = "";
    let at = from;
    for (const run of this.#shift((place) => place < to || (isLast && place === to))) {
      const place = Math.max(at, run.at);
      woven += visible.slice(at, place) + run.text;
      at = place;
    }
    return woven + visible.slice(at, to);
  }

  /** Forgets what stood before `to`. */
  drop(to: number): void {
    this.#shift((place) => place < to);
  }

  /** The visible text has lost its first `by` characters. */
  move(by: number): void {
    for (const run of this.#runs) run.at -= by;
  }

  #shift(isMeant: (place: number) => boolean): readonly Run[] {
    if (this.length === 0) return [];
    const end = this.#runs.findIndex(({ at }) => !isMeant(at));
    const gone = this.#runs.splice(0, end === -1 ? this.#runs.length : end);
    for (const { text } of gone) this.length -= text.length;
    return gone;
  }
}

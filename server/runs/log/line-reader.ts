// Reads the log's lines, whose form lines.ts tells, from anywhere in a run.
import { RunNotFound } from "../../errors.ts";
import { patched } from "./alike.ts";
import { MOST_AT_ONCE, sizeOf } from "./lines.ts";
import type { Base, Entry, Grown, Numbered, Template } from "./lines.ts";

// Thousands of readers may wait for the next event of a run each: what is longer is looked up again.
const MOST_KEPT = 131_072;

/** Reads the segment that holds an event; undefined when the run is gone. */
type FindSegment = (
  seq: number,
) => Promise<{ readonly seq: number | null; readonly body: string } | undefined>;

/** Reads segments of one run, in order, from anywhere in its log. */
export class LineReader {
  readonly #templates = new Map<number, Template>();
  /** Growing texts, by the number of the event that held them whole last. */
  readonly #grown = new Map<number, { readonly template: Template; text: string }>();
  #base: Base | undefined;
  /** Number of the event behind the last one that was read. */
  #next = -1;
  readonly #findSegment: FindSegment;

  /** @param findSegment for what lines refer to: it may lie before the start */
  constructor(findSegment: FindSegment) {
    this.#findSegment = findSegment;
  }

  /** The events of a segment that begins with number `seq`, some at a time. @throws RunNotFound when it goes meanwhile */
  async *read(seq: number, body: string): AsyncGenerator<Numbered[]> {
    const lines = body.split("\n");
    // What was added meanwhile was read elsewhere.
    if (seq !== this.#next) this.#grown.clear();
    this.#next = seq + lines.length;
    let events: Numbered[] = [];
    let size = 0;
    for (const [index, line] of lines.entries()) {
      const number = seq + index;
      const { at, bare } = timed(line);
      const entry = await this.#entryOf(number, bare);
      events.push({ seq: number, entry: at === undefined ? entry : { ...entry, at } });
      size += sizeOf(entry);
      if (size < MOST_AT_ONCE) continue;
      yield events;
      [events, size] = [[], 0];
    }
    if (this.#base && this.#base.data.length > MOST_KEPT) this.#base = undefined;
    if (events.length > 0) yield events;
  }

  async #entryOf(seq: number, line: string): Promise<Entry> {
    const [kind = "", first = "", second = "", third = "", fourth = ""] = line.split("\t");
    if (kind === "e" || kind === "E") {
      if (kind === "E") this.#base = { seq, event: first, data: second };
      return { event: first, data: second, ...(third && { checkpoint: third }) };
    }
    if (kind === "D" || kind === "G") {
      const template = this.#templates.get(seq) ?? { event: first, prefix: second, suffix: third };
      this.#templates.set(seq, template);
      return kind === "D" ? { template, text: fourth } : this.#begin(seq, template, fourth);
    }
    const id = Number(kind.slice(1));
    if (kind.startsWith("a")) return this.#grow(seq, id, first);
    if (kind.startsWith("v")) {
      const data = patched(await this.#baseOf(seq, id), {
        pieces: second.split(",").map(Number),
        added: third,
      });
      return { event: first, data, ...(fourth && { checkpoint: fourth }) };
    }
    if (!this.#templates.has(id)) await this.#define(id);
    const template = this.#templates.get(id);
    if (!template) throw new Error(`Event ${seq} refers to event ${id}, which defines nothing.`);
    return kind.startsWith("g") ? this.#begin(seq, template, first) : { template, text: first };
  }

  async #define(id: number): Promise<void> {
    const bare = await this.#lookUp(id);
    if (/^[DG]\t/.test(bare)) await this.#entryOf(id, bare);
  }

  /** The line of an event that came before, without its time; empty when there is none. */
  async #lookUp(id: number): Promise<string> {
    const { lines, start } = await this.#segmentOf(id);
    return timed(lines[id - start] ?? "").bare;
  }

  async #segmentOf(seq: number): Promise<{ lines: string[]; start: number }> {
    const segment = await this.#findSegment(seq);
    if (!segment) throw new RunNotFound();
    return { lines: segment.body.split("\n"), start: segment.seq ?? 0 };
  }

  async #baseOf(seq: number, id: number): Promise<string> {
    if (this.#base?.seq !== id) {
      const bare = await this.#lookUp(id);
      if (bare.startsWith("E\t")) await this.#entryOf(id, bare);
    }
    if (this.#base?.seq !== id) throw new Error(`Event ${seq} is told by event ${id}, which is no document.`);
    return this.#base.data;
  }

  #begin(seq: number, template: Template, text: string): Grown {
    for (const [base, one] of this.#grown) if (one.template === template) this.#grown.delete(base);
    this.#grown.set(seq, { template, text });
    return { template, text, added: undefined };
  }

  async #grow(seq: number, base: number, added: string): Promise<Grown> {
    if (!this.#grown.has(base)) await this.#readBack(base, seq);
    const grown = this.#grown.get(base);
    if (!grown) throw new Error(`Event ${seq} adds to event ${base}, which holds no text.`);
    grown.text = `${grown.text.slice(0, -1)}${added}"`;
    return { template: grown.template, text: grown.text, added };
  }

  /** Reads what was added to event `base` before event `end`. */
  async #readBack(base: number, end: number): Promise<void> {
    for (let next = base; next < end;) {
      const { lines, start } = await this.#segmentOf(next);
      if (start + lines.length <= next) return;
      for (const [index, line] of lines.entries()) {
        const seq = start + index;
        const isNext = seq >= next && seq < end;
        if (isNext && (seq === base ? /^[Gg]/.test(line) : this.#adds(base, line)))
          await this.#entryOf(seq, line);
      }
      next = start + lines.length;
    }
  }

  #adds(base: number, line: string): boolean {
    return this.#grown.has(base) && line.startsWith(`a${base}\t`);
  }
}

/** A line without its time. */
function timed(line: string): { at: number | undefined; bare: string } {
  if (!line.startsWith("@")) return { at: undefined, bare: line };
  const end = line.indexOf("\t");
  return { at: Number(line.slice(1, end)), bare: line.slice(end + 1) };
}

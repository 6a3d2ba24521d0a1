// The text form of the log: one line per event. Events that differ in one string only, as the tokens of an answer do,
// share a template: the first of them defines it and names it by its own number, the others hold the string alone.
// An answer that is told from its beginning each time, as far as it has come, is a template whose text grows: most of
// its lines hold what was added alone.
// Lines and their parts are divided by line feed and tab, which JSON text never holds.
// A line that begins with @ and a time is told in the form of protocol v2; one without is told to legacy clients.

/** Events whose data is `prefix`, one JSON string, `suffix`. */
export interface Template {
  readonly event: string;
  readonly prefix: string;
  readonly suffix: string;
}

/** A whole JSON document. */
export interface Whole {
  readonly event: string;
  readonly data: string;
  /** Id of the checkpoint whose state it tells: what comes before this event came before that checkpoint. */
  readonly checkpoint?: string;
}

/** What a run tells: a whole JSON document, or the one string that a template lacks, as JSON text. */
export type Entry = (Whole | { readonly template: Template; readonly text: string } | Grown) & {
  /** When, in milliseconds since 1970, for an event of protocol v2; absent in one for legacy clients. */
  readonly at?: number;
};

/** A text that begins with the one before it in the same template. */
export interface Grown {
  readonly template: Template;
  readonly text: string;
  /** What is new at its end, as JSON text without quotes; undefined when the text is not made so. */
  readonly added: string | undefined;
}

/** What many events share is told with each: so many characters of a log can be a thousand times as many to tell. */
export const MOST_AT_ONCE = 262_144;

// After so many additions the text is written whole again: who begins in the middle reads back no further.
const MOST_ADDITIONS = 64;

/** An entry and its number in the run. */
export interface Numbered {
  readonly seq: number;
  readonly entry: Entry;
}

export const nameOf = (entry: Entry): string => ("template" in entry ? entry.template.event : entry.event);

/** The JSON document that a client sees. */
export const dataOf = (entry: Entry): string =>
  "template" in entry ? entry.template.prefix + entry.text + entry.template.suffix : entry.data;

/** How many characters that is. */
export const sizeOf = (entry: Entry): number =>
  "template" in entry
    ? entry.template.prefix.length + entry.text.length + entry.template.suffix.length
    : entry.data.length;

/** The first event of every attempt. */
export const metadataOf = (runId: string, attempt: number): Whole => ({
  event: "metadata",
  data: JSON.stringify({ run_id: runId, attempt }),
});

export const wholeLine = ({ event, data, checkpoint }: Whole): string =>
  `e\t${event}\t${data}${checkpoint === undefined ? "" : `\t${checkpoint}`}`;

/** Writes the lines of one attempt of a run. */
export class LineWriter {
  readonly #defined = new Map<Template, number>();
  /** Where each growing text was written whole last, and how often it was added to since. */
  readonly #grown = new Map<Template, { readonly seq: number; additions: number }>();

  line({ seq, entry }: Numbered): string {
    const line = this.#bareLine(seq, entry);
    return entry.at === undefined ? line : `@${entry.at}\t${line}`;
  }

  #bareLine(seq: number, entry: Entry): string {
    if (!("template" in entry)) return wholeLine(entry);
    const { template, text } = entry;
    const isGrown = "added" in entry;
    if (isGrown) {
      const base = this.#grown.get(template);
      if (base && entry.added !== undefined && base.additions < MOST_ADDITIONS) {
        base.additions += 1;
        return `a${base.seq}\t${entry.added}`;
      }
      this.#grown.set(template, { seq, additions: 0 });
    }
    const id = this.#defined.get(template);
    if (id !== undefined) return `${isGrown ? "g" : "d"}${id}\t${text}`;
    this.#defined.set(template, seq);
    const { event, prefix, suffix } = template;
    return `${isGrown ? "G" : "D"}\t${event}\t${prefix}\t${suffix}\t${text}`;
  }
}

/** Reads segments of one run, in order, from anywhere in its log. */
export class LineReader {
  readonly #templates = new Map<number, Template>();
  /** Growing texts, by the number of the event that held them whole last. */
  readonly #grown = new Map<number, { readonly template: Template; text: string }>();
  /** Number of the event behind the last one that was read. */
  #next = -1;
  readonly #findSegment: (seq: number) => Promise<{ seq: number | null; body: string } | undefined>;

  /** @param findSegment reads the segment that holds an event: what a line refers to may lie before the start */
  constructor(findSegment: (seq: number) => Promise<{ seq: number | null; body: string } | undefined>) {
    this.#findSegment = findSegment;
  }

  /** The events of a segment that begins with number `seq`, some at a time. */
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
    if (events.length > 0) yield events;
  }

  async #entryOf(seq: number, line: string): Promise<Entry> {
    const [kind = "", first = "", second = "", third = "", fourth = ""] = line.split("\t");
    if (kind === "e") return { event: first, data: second, ...(third && { checkpoint: third }) };
    if (kind === "D" || kind === "G") {
      const template = this.#templates.get(seq) ?? { event: first, prefix: second, suffix: third };
      this.#templates.set(seq, template);
      return kind === "D" ? { template, text: fourth } : this.#begin(seq, template, fourth);
    }
    const id = Number(kind.slice(1));
    if (kind.startsWith("a")) return this.#grow(seq, id, first);
    if (!this.#templates.has(id)) await this.#define(id);
    const template = this.#templates.get(id);
    if (!template) throw new Error(`Event ${seq} refers to event ${id}, which defines nothing.`);
    return kind.startsWith("g") ? this.#begin(seq, template, first) : { template, text: first };
  }

  async #define(id: number): Promise<void> {
    const segment = await this.#findSegment(id);
    const line = segment?.body.split("\n")[id - (segment.seq ?? 0)];
    if (line === undefined) return;
    const { bare } = timed(line);
    if (/^[DG]\t/.test(bare)) await this.#entryOf(id, bare);
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
      const segment = await this.#findSegment(next);
      const lines = segment?.body.split("\n") ?? [];
      const start = segment?.seq ?? next;
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

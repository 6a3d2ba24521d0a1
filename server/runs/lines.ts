// The text form of the log: one line per event. Events that differ in one string only, as the tokens of an answer do,
// share a template: the first of them defines it and names it by its own number, the others hold the string alone.
// Lines and their parts are divided by line feed and tab, which JSON text never holds.

/** Events whose data is `prefix`, one JSON string, `suffix`. */
export interface Template {
  readonly event: string;
  readonly prefix: string;
  readonly suffix: string;
}

/** What a run tells: a whole JSON document, or the one string that a template lacks, as JSON text. */
export type Entry =
  | { readonly event: string; readonly data: string }
  | { readonly template: Template; readonly text: string };

/** An entry and its number in the run. */
export interface Numbered {
  readonly seq: number;
  readonly entry: Entry;
}

export const nameOf = (entry: Entry): string => ("template" in entry ? entry.template.event : entry.event);

/** The JSON document that a client sees. */
export const dataOf = (entry: Entry): string =>
  "template" in entry ? entry.template.prefix + entry.text + entry.template.suffix : entry.data;

/** The first event of every attempt. */
export const metadataOf = (runId: string, attempt: number): { event: string; data: string } => ({
  event: "metadata",
  data: JSON.stringify({ run_id: runId, attempt }),
});

export const wholeLine = ({ event, data }: { event: string; data: string }): string => `e\t${event}\t${data}`;

/** Writes the lines of one attempt of a run. */
export class LineWriter {
  readonly #defined = new Map<Template, number>();

  line({ seq, entry }: Numbered): string {
    if (!("template" in entry)) return wholeLine(entry);
    const { template, text } = entry;
    const id = this.#defined.get(template);
    if (id !== undefined) return `d${id}\t${text}`;
    this.#defined.set(template, seq);
    return `D\t${template.event}\t${template.prefix}\t${template.suffix}\t${text}`;
  }
}

/** Reads segments of one run, in order, from anywhere in its log. */
export class LineReader {
  readonly #templates = new Map<number, Template>();
  readonly #findSegment: (seq: number) => Promise<{ seq: number | null; body: string } | undefined>;

  /** @param findSegment reads the segment that holds an event: the definition of a template may lie before the start */
  constructor(findSegment: (seq: number) => Promise<{ seq: number | null; body: string } | undefined>) {
    this.#findSegment = findSegment;
  }

  /** The events of a segment that begins with number `seq`. */
  async read(seq: number, body: string): Promise<Numbered[]> {
    const lines = body.split("\n");
    const events: Numbered[] = [];
    for (const [index, line] of lines.entries()) {
      const number = seq + index;
      events.push({ seq: number, entry: await this.#entryOf(number, line) });
    }
    return events;
  }

  async #entryOf(seq: number, line: string): Promise<Entry> {
    const parts = line.split("\t");
    const [kind = "", first = "", second = "", third = "", fourth = ""] = parts;
    if (kind === "e") return { event: first, data: second };
    if (kind === "D") {
      const template = this.#templates.get(seq) ?? { event: first, prefix: second, suffix: third };
      this.#templates.set(seq, template);
      return { template, text: fourth };
    }
    const id = Number(kind.slice(1));
    if (!this.#templates.has(id)) await this.#define(id);
    const template = this.#templates.get(id);
    if (!template) throw new Error(`Event ${seq} refers to event ${id}, which defines nothing.`);
    return { template, text: first };
  }

  async #define(id: number): Promise<void> {
    const segment = await this.#findSegment(id);
    const line = segment?.body.split("\n")[id - (segment.seq ?? 0)];
    if (line?.startsWith("D\t")) await this.#entryOf(id, line);
  }
}

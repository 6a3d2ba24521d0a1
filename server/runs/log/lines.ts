// The text form of the log: one line per event. Events that differ in one string only, as the tokens of an answer do,
// share a template: the first of them defines it and names it by its own number, the others hold the string alone.
// An answer that is told from its beginning each time, as far as it has come, is a template whose text grows: most of
// its lines hold what was added alone.
// A large document that is mostly like an earlier one, as a state is, holds what differs from that alone.
// Lines and their parts are divided by line feed and tab, which JSON text never holds.
// A line that begins with @ and a time is told in the form of protocol v2; one without is told to legacy clients.
import { differenceOf } from "./alike.ts";

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

// A document that is shorter saves too little.
const LEAST_ALIKE = 1024;

/** The document that those after it are told by, and the number of its event. */
export interface Base {
  readonly seq: number;
  readonly event: string;
  readonly data: string;
}

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
  `e\t${event}\t${data}${partOf(checkpoint)}`;

const partOf = (checkpoint: string | undefined): string =>
  checkpoint === undefined ? "" : `\t${checkpoint}`;

/** Writes the lines of one attempt of a run. */
export class LineWriter {
  readonly #defined = new Map<Template, number>();
  /** Where each growing text was written whole last, and how often it was added to since. */
  readonly #grown = new Map<Template, { readonly seq: number; additions: number }>();
  #base: Base | undefined;

  line({ seq, entry }: Numbered): string {
    const line = this.#bareLine(seq, entry);
    return entry.at === undefined ? line : `@${entry.at}\t${line}`;
  }

  #bareLine(seq: number, entry: Entry): string {
    if (!("template" in entry)) return this.#whole(seq, entry);
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

  #whole(seq: number, whole: Whole): string {
    const { event, data, checkpoint } = whole;
    if (data.length < LEAST_ALIKE) return wholeLine(whole);
    const base = this.#base;
    // What one node changed is mostly no part of the state before it: not worth looking.
    if (base && event !== base.event && data.length < base.data.length / 2) return wholeLine(whole);
    const difference = base && differenceOf(base.data, data, data.length / 2);
    if (difference) {
      const pieces = difference.pieces.join(",");
      return `v${base.seq}\t${event}\t${pieces}\t${difference.added}${partOf(checkpoint)}`;
    }
    this.#base = { seq, event, data };
    return `E${wholeLine(whole).slice(1)}`;
  }
}

// Recall and precision. A known value counts as found only when every letter and digit of it is gone, whatever the
// placeholder says: half an address is a leak.
import type { Redactor } from "../../server/privacy/redact.ts";
import type { Row } from "./rows.ts";

const STRUCTURED = ["EMAIL", "PHONE", "CREDIT_CARD", "IBAN", "SSN", "IP", "MAC", "SECRET"];
const COUNTS = /[A-Za-z0-9]|[^\0-\u00bf]/;
const PLACEHOLDER = /\[REDACTED(?:_([A-Z0-9_]+))?\]/g;

interface Found {
  readonly kind: string;
  readonly start: number;
  readonly end: number;
}

export interface Score {
  readonly recall: Record<string, number>;
  readonly structured_recall: number;
  /** Of the rows that hold a value of a structured kind. */
  readonly rows_with_leak: number;
  readonly span_precision: number;
  readonly short_structured_recall: number;
  readonly short_phone_recall: number;
}

export interface PersonScore {
  readonly person_recall: number;
  readonly person_precision: number;
  readonly span_precision_with_names: number;
}

/** @param redactor with the rules that are always on */
export function scoreStructured(redactor: Redactor, rows: readonly Row[]): Score {
  const all = new Tally();
  const short = new Tally();
  const precision = new Tally();
  let leaks = 0;
  let mayLeak = 0;
  for (const row of rows) {
    const found = findingsIn(redactor, row.text);
    const results = row.spans.map((span) => ({ type: span.type, isFound: isCovered(row.text, span, found) }));
    for (const { type, isFound } of results) {
      all.add(type, isFound);
      if (isShort(row)) short.add(type, isFound);
    }
    const structured = results.filter(({ type }) => STRUCTURED.includes(type));
    if (structured.length > 0) mayLeak += 1;
    if (structured.some(({ isFound }) => !isFound)) leaks += 1;
    if (isShort(row)) for (const one of found) precision.add("all", touches(row, one));
  }
  return {
    recall: Object.fromEntries([...STRUCTURED, "DOB", "ADDRESS"].map((type) => [type, all.rate([type])])),
    structured_recall: all.rate(STRUCTURED),
    rows_with_leak: round(leaks / mayLeak),
    span_precision: precision.rate(["all"]),
    short_structured_recall: short.rate(STRUCTURED),
    short_phone_recall: short.rate(["PHONE"]),
  };
}

/** Over short sentences: longer records do not name every person they hold. */
export function scorePersons(redactor: Redactor, rows: readonly Row[]): PersonScore {
  const recall = new Tally();
  const precision = new Tally();
  for (const row of rows.filter(isShort)) {
    const found = findingsIn(redactor, row.text);
    for (const span of row.spans) recall.add(span.type, isCovered(row.text, span, found));
    for (const one of found) {
      precision.add("all", touches(row, one));
      if (one.kind === "PERSON") precision.add("PERSON", touches(row, one, "PERSON"));
    }
  }
  return {
    person_recall: recall.rate(["PERSON"]),
    person_precision: precision.rate(["PERSON"]),
    span_precision_with_names: precision.rate(["all"]),
  };
}

const isShort = ({ source }: Row): boolean => source === "presidio-v1";

const touches = (row: Row, { start, end }: Found, type?: string): boolean =>
  row.spans.some(
    (span) => span.start < end && start < span.end && (type === undefined || type === span.type),
  );

function isCovered(
  text: string,
  { start, end }: { start: number; end: number },
  found: readonly Found[],
): boolean {
  for (let at = start; at < end; at += 1) {
    const isGone = found.some((one) => one.start <= at && at < one.end);
    if (!isGone && COUNTS.test(text.charAt(at))) return false;
  }
  return true;
}

/** Lays the redacted text over the text. Where two ways fit, the earlier end of a finding counts. */
function findingsIn(redactor: Redactor, text: string): Found[] {
  const redacted = redactor.redact(text);
  const found: Found[] = [];
  let told = 0;
  let at = 0;
  for (const placeholder of redacted.matchAll(PLACEHOLDER)) {
    const before = redacted.slice(told, placeholder.index);
    const start = text.indexOf(before, at) + before.length;
    const last = found.at(-1);
    if (last) found[found.length - 1] = { ...last, end: start - before.length };
    told = placeholder.index + placeholder[0].length;
    at = start + 1;
    found.push({ kind: placeholder[1] ?? "", start, end: text.length });
  }
  const last = found.pop();
  return last ? [...found, { ...last, end: text.length - (redacted.length - told) }] : [];
}

class Tally {
  readonly #hits = new Map<string, number>();
  readonly #all = new Map<string, number>();

  add(name: string, isHit: boolean): void {
    this.#all.set(name, (this.#all.get(name) ?? 0) + 1);
    if (isHit) this.#hits.set(name, (this.#hits.get(name) ?? 0) + 1);
  }

  rate(names: readonly string[]): number {
    const sum = (of: ReadonlyMap<string, number>): number =>
      names.reduce((total, name) => total + (of.get(name) ?? 0), 0);
    return round(sum(this.#hits) / Math.max(1, sum(this.#all)));
  }
}

export const round = (value: number, digits = 4): number => Number(value.toFixed(digits));

// How much personal data the redactor finds, what it takes by mistake, and what it costs, beside the goals.
import { dirname, join } from "node:path";
import { parseArgs } from "node:util";
import { ConfigInvalid } from "../server/errors.ts";
import { Redactor } from "../server/privacy/redact.ts";
import { readProse, readRows } from "./redaction/rows.ts";
import type { Row } from "./redaction/rows.ts";
import { scorePersons, scoreStructured } from "./redaction/score.ts";
import type { PersonScore, Score } from "./redaction/score.ts";
import { falseSpansPerMb, heldOn, speedOn, worstOf } from "./redaction/speed.ts";

const help = `redaction --data FILE [--prose FILE] [--json]
  --data FILE   rows with known findings: {"id","source","text","spans":[{"start","end","type"}]}, .jsonl or .jsonl.gz
  --prose FILE  texts without any: {"title","text"}; default scifact-corpus.jsonl.gz beside the data
  --json        the last line is the result as JSON`;

/** Half of the streams measured is enough: each token costs the same. */
const STREAMED = 300;

const goals: readonly [name: string, goal: string, isMet: (value: number) => boolean][] = [
  ["structured_recall", "≥ 0.99", (value) => value >= 0.99],
  ["rows_with_leak", "≤ 0.02", (value) => value <= 0.02],
  ["short_structured_recall", "≥ 0.95", (value) => value >= 0.95],
  ["short_phone_recall", "≥ 0.85", (value) => value >= 0.85],
  ["span_precision", "≥ 0.97", (value) => value >= 0.97],
  ["person_recall", "≥ 0.65", (value) => value >= 0.65],
  ["person_precision", "≥ 0.79", (value) => value >= 0.79],
  ["false_spans_per_mb", "≤ 20", (value) => value <= 20],
  ["false_spans_per_mb_with_names", "≤ 200", (value) => value <= 200],
  ["mb_per_s", "≥ 5", (value) => value >= 5],
  ["worst_hostile_ms", "≤ 100", (value) => value <= 100],
  ["held_prose_mean", "≤ 6", (value) => value <= 6],
  ["held_prose_p99", "≤ 40", (value) => value <= 40],
  ["held_chat_mean", "≤ 6", (value) => value <= 6],
  ["held_chat_p99", "≤ 40", (value) => value <= 40],
];

/** Prints a table beside the goals, or with --json the result in one last line. */
export async function redaction(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { data: { type: "string" }, prose: { type: "string" }, json: { type: "boolean" } },
  });
  if (!values.data) throw new ConfigInvalid(`Give the file of rows.\n${help}`);
  const { seen, unseen } = readRows(values.data);
  const prose = readProse(values.prose ?? join(dirname(values.data), "scifact-corpus.jsonl.gz"));
  const structured = new Redactor();
  const withNames = new Redactor({ names: true });
  const score = (rows: readonly Row[]): Score & PersonScore => ({
    ...scoreStructured(structured, rows),
    ...scorePersons(withNames, rows),
  });
  const chat = unseen.filter(({ source }) => source === "presidio-v1").map(({ text }) => text);
  const onProse = heldOn(structured, prose.slice(0, STREAMED));
  const onChat = heldOn(structured, chat);
  const result = {
    ...score(unseen),
    ...speeds(structured, withNames, prose),
    held_prose_mean: onProse.mean,
    held_prose_p99: onProse.p99,
    held_prose_max: onProse.max,
    held_chat_mean: onChat.mean,
    held_chat_p99: onChat.p99,
    held_chat_max: onChat.max,
    token_us: onProse.token_us,
    held_with_names: { prose: heldOn(withNames, prose.slice(0, STREAMED)), chat: heldOn(withNames, chat) },
    rows: unseen.length,
    seen: { rows: seen.length, ...score(seen) },
  };
  if (values.json) console.log(JSON.stringify(result));
  else print(result);
}

function speeds(
  structured: Redactor,
  withNames: Redactor,
  prose: readonly string[],
): Record<string, number | string> {
  return {
    mb_per_s: speedOn(structured, prose),
    mb_per_s_with_names: speedOn(withNames, prose),
    false_spans_per_mb: falseSpansPerMb(structured, prose),
    false_spans_per_mb_with_names: falseSpansPerMb(withNames, prose),
    ...worstOf(withNames),
  };
}

function print(result: Record<string, unknown> & { readonly seen: Record<string, unknown> }): void {
  console.log("| measure | unseen | seen | goal | |\n|---|---|---|---|---|");
  for (const [name, goal, isMet] of goals) {
    const value = Number(result[name]);
    console.log(
      `| ${name} | ${value} | ${text(result.seen[name])} | ${goal} | ${isMet(value) ? "met" : "missed"} |`,
    );
  }
  const named = new Set<string>([...goals.map(([name]) => name), "seen"]);
  for (const [name, value] of Object.entries(result).filter(([key]) => !named.has(key))) {
    console.log(`| ${name} | ${text(value)} | ${text(result.seen[name])} | | |`);
  }
}

const text = (value: unknown): string => (typeof value === "string" ? value : (JSON.stringify(value) ?? ""));

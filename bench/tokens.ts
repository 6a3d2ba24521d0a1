// Token counts against tiktoken as the oracle, on texts, on random ones and on the worst ones; and what they cost.
import { readFileSync } from "node:fs";
import { monitorEventLoopDelay, performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { gunzipSync } from "node:zlib";
import { get_encoding } from "tiktoken";
import { seeded } from "../server/commands/chaos/random.ts";
import type { Random } from "../server/commands/chaos/random.ts";
import { ConfigInvalid } from "../server/errors.ts";
import { countWith } from "../server/models/encoding.ts";
import type { Encoding } from "../server/models/encoding.ts";
import { countTokens, stopCounting } from "../server/models/tokens.ts";

const help = `tokens --data FILE[,FILE] [--strings N] [--seed N] [--json]
  --data FILE   .jsonl or .jsonl.gz whose string fields are the texts
  --strings N   how many random strings are compared too; default 100000
  --json        the last line is the result as JSON`;

const ENCODINGS = { o200k_base: "gpt-4.1-mini", cl100k_base: "gpt-4" } as const;
const WORST_BYTES = 300_000;
const SHORT = 40;

interface Result {
  readonly encoding: Encoding;
  readonly texts: number;
  readonly strings: number;
  readonly wrong: number;
  /** Of the texts, once their short pieces are known. */
  readonly mb_per_s: number;
  readonly tiktoken_mb_per_s: number;
  readonly worst_ms: number;
  readonly stall_ms: number;
}

/** Prints a table, and with --json the result in one last line. */
export async function tokens(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: {
      data: { type: "string" },
      strings: { type: "string", default: "100000" },
      seed: { type: "string", default: "1" },
      json: { type: "boolean" },
    },
  });
  if (!values.data) throw new ConfigInvalid(`Give the files of texts.\n${help}`);
  const texts = values.data.split(",").flatMap(textsOf);
  const results: Result[] = [];
  for (const encoding of Object.keys(ENCODINGS) as Encoding[])
    results.push(
      await measure(encoding, texts, { strings: Number(values.strings), seed: Number(values.seed) }),
    );
  await stopCounting();
  if (values.json) console.log(JSON.stringify(results));
  else console.table(results);
}

async function measure(
  encoding: Encoding,
  texts: readonly string[],
  { strings, seed }: { strings: number; seed: number },
): Promise<Result> {
  const oracle = get_encoding(encoding);
  const isWrong = (text: string): boolean =>
    countWith(encoding, text) !== oracle.encode_ordinary(text).length;
  const random = seeded(seed);
  let wrong = texts.filter(isWrong).length;
  for (let count = 0; count < strings; count += 1) if (isWrong(stringOf(random))) wrong += 1;
  const speed = (count: (text: string) => unknown): number => {
    for (const text of texts) count(text);
    const at = performance.now();
    for (const text of texts) count(text);
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
    return round(bytes / 1000 / (performance.now() - at));
  };
  const result = {
    encoding,
    texts: texts.length,
    strings,
    wrong,
    mb_per_s: speed((text) => countWith(encoding, text)),
    tiktoken_mb_per_s: speed((text) => oracle.encode_ordinary(text).length),
    ...(await worstOf(encoding)),
  };
  oracle.free();
  return result;
}

/** Runs of one character, counted as a run of the server would: off the main thread. */
async function worstOf(encoding: Encoding): Promise<{ worst_ms: number; stall_ms: number }> {
  const model = ENCODINGS[encoding];
  await countTokens("x".repeat(70_000), model);
  const delay = monitorEventLoopDelay({ resolution: 1 });
  let worst = 0;
  delay.enable();
  for (const one of ["a", "A", " ", "\n", "!", "漢", "é", "1", "🙂", "\u0301"]) {
    const text = one.repeat(WORST_BYTES / Buffer.byteLength(one));
    const at = performance.now();
    await countTokens(text, model);
    worst = Math.max(worst, performance.now() - at);
  }
  delay.disable();
  return { worst_ms: round(worst), stall_ms: round(delay.max / 1_000_000) };
}

/** Any code points, lone surrogates too; half of them from the planes that people write in. */
function stringOf(random: Random): string {
  const most = random.chance(0.5) ? 0x2000 : 0x10ffff;
  return Array.from({ length: random.between(0, SHORT) }, () =>
    String.fromCodePoint(random.between(0, random.chance(0.3) ? 0x7f : most)),
  ).join("");
}

function textsOf(file: string): string[] {
  const bytes = readFileSync(file);
  const lines = (file.endsWith(".gz") ? gunzipSync(bytes) : bytes)
    .toString("utf8")
    .split("\n")
    .filter(Boolean);
  return lines.flatMap((line) =>
    Object.values(JSON.parse(line) as Record<string, unknown>).filter((one) => typeof one === "string"),
  );
}

const round = (value: number): number => Math.round(value * 10) / 10;

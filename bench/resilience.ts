// What each device of server/models/resilience does for calls to a provider that fails, alone and left out: how many
// requests succeed, how much later, with how many calls. No text may ever come twice.
import { performance } from "node:perf_hooks";
import { parseArgs } from "node:util";
import { quantile } from "../server/commands/chaos/quantile.ts";
import { policyOf } from "../server/models/resilience/policy.ts";
import type { Policy } from "../server/models/resilience/policy.ts";
import { Resilience } from "../server/models/resilience/resilience.ts";
import { measureCost } from "./resilience/cost.ts";
import { startBadProvider, TOKENS } from "./resilience/provider.ts";
import type { BadProvider } from "./resilience/provider.ts";

const WORKERS = 32;
const SILENCE_MS = 150;

const off: Partial<Policy> = {
  retries: 0,
  retry_base_ms: 20,
  retry_max_ms: 200,
  total_ms: 5000,
  breaker_window: 10_000,
  breaker_min_calls: 10_000,
  concurrent: 1_000_000,
};
const devices: Readonly<Record<string, Partial<Policy>>> = {
  retries: { retries: 3 },
  fallback: {},
  breaker: { breaker_window: 20, breaker_min_calls: 10, breaker_open_ms: 300 },
  bulkhead: { concurrent: 20, queue: 1000, queue_ms: 5000 },
};
const names = Object.keys(devices);

interface Row {
  readonly devices: string;
  readonly success: number;
  readonly added_p50_ms: number;
  readonly added_p99_ms: number;
  /** Of those that failed: how long their callers waited to learn it. */
  readonly failed_p50_ms: number;
  readonly calls: number;
  readonly duplicates: number;
}

/** Prints a table, and with --json the result in one last line. */
export async function resilience(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { requests: { type: "string" }, seed: { type: "string" }, json: { type: "boolean" } },
  });
  const [requests, seed] = [Number(values.requests ?? 1000), Number(values.seed ?? 1)];
  const whole = async (): Promise<Row> =>
    withProvider({ seed, requests: 500, isFailing: false }, async (provider) =>
      measure(provider, { uses: [], requests: 500, baseMs: 0 }),
    );
  await whole(); // the first is slower
  const healthy = await whole();
  const rows: Row[] = [];
  for (const uses of [[], ...names.map((one) => [one]), ...names.map(without), names])
    rows.push(
      await withProvider({ seed, requests, isFailing: true }, async (provider) =>
        measure(provider, { uses, requests, baseMs: healthy.added_p50_ms }),
      ),
    );
  const cost = await measureCost();
  print(rows, healthy, cost);
  if (values.json)
    console.log(JSON.stringify({ requests, seed, healthy_ms: healthy.added_p50_ms, rows, ...cost }));
}

const without = (left: string): string[] => names.filter((one) => one !== left);

async function withProvider(
  load: Parameters<typeof startBadProvider>[0],
  work: (provider: BadProvider) => Promise<Row>,
): Promise<Row> {
  const provider = await startBadProvider(load);
  try {
    return await work(provider);
  } finally {
    await provider.stop();
  }
}

interface Plan {
  readonly uses: readonly string[];
  readonly requests: number;
  /** What a request takes when nothing fails. */
  readonly baseMs: number;
}

async function measure(provider: BadProvider, { uses, requests, baseMs }: Plan): Promise<Row> {
  const policy = policyOf(SILENCE_MS, off, ...uses.map((one) => devices[one] ?? {}));
  const asker = new Resilience({ policyOf: () => policy });
  const chain = uses.includes("fallback") ? ["first", "second"] : ["first"];
  const [took, failed]: [number[], number[]] = [[], []];
  let [calls, duplicates, next] = [0, 0, 0];
  const work = async (): Promise<void> => {
    for (let index = next++; index < requests; index = next++) {
      const start = performance.now();
      const text = await read(asker, {
        chain,
        send: ({ model, nth, signal }) => {
          calls += 1;
          return fetch(`${provider.url}/${model}/${index}/${nth}`, { method: "POST", body: "{}", signal });
        },
      });
      if (isTwice(text.text)) duplicates += 1;
      (text.isWhole ? took : failed).push(performance.now() - start);
    }
  };
  await Promise.all(Array.from({ length: WORKERS }, work));
  return {
    devices: uses.length === 0 ? "none" : uses.join(" + "),
    success: round(took.length / requests, 4),
    added_p50_ms: round((quantile(took, 0.5) ?? 0) - baseMs, 1),
    added_p99_ms: round((quantile(took, 0.99) ?? 0) - baseMs, 1),
    failed_p50_ms: round(quantile(failed, 0.5) ?? 0, 1),
    calls: round(calls / requests, 3),
    duplicates,
  };
}

interface Text {
  readonly text: string;
  readonly isWhole: boolean;
}

/** What a client would have shown, also of an answer that broke. */
async function read(
  asker: Resilience,
  ask: Pick<Parameters<Resilience["ask"]>[0], "chain" | "send">,
): Promise<Text> {
  let text = "";
  try {
    const { response } = await asker.ask({ ...ask, tokens: 100 });
    if (!response.ok) {
      await response.body?.cancel();
      return { text, isWhole: false };
    }
    const decoder = new TextDecoder();
    for await (const part of response.body ?? []) text += decoder.decode(part, { stream: true });
    return { text, isWhole: text.endsWith("[DONE]\n\n") && tokensOf(text).length === TOKENS };
  } catch {
    return { text, isWhole: false };
  }
}

/** Tokens name their call and their place in it. */
const tokensOf = (text: string): string[] =>
  [...text.matchAll(/"content":"(\S+) "/g)].map(([, token = ""]) => token);

/** Whether a place in the answer was told twice, by the same call or by another. */
function isTwice(text: string): boolean {
  const places = tokensOf(text).map((token) => token.slice(token.lastIndexOf(".")));
  return new Set(places).size !== places.length;
}

function print(rows: readonly Row[], healthy: Row, cost: Record<string, number>): void {
  console.log(
    `A healthy request takes ${healthy.added_p50_ms} ms. Added is what a request that succeeded took beyond it.`,
  );
  console.log(
    "| devices | success | added p50 ms | added p99 ms | failed p50 ms | calls a request | duplicates |",
  );
  console.log("|---|---|---|---|---|---|---|");
  for (const row of rows) console.log(`| ${Object.values(row).join(" | ")} |`);
  console.log(`Without a failure: ${JSON.stringify(cost)} (µs).`);
}

const round = (value: number, digits: number): number => Number(value.toFixed(digits));

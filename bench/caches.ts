// What an answer from the cache saves: the first token and the whole of it, calls and dollars, as a client of the server
// sees them. A hundred who ask the same at once are one call.
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { startOfflineModel } from "../server/models/offline/server.ts";
import { quantile, startServer } from "./engine/processes.ts";
import { until } from "./engine/streams.ts";
import { openScratchDatabase } from "./scratch.ts";

const TOGETHER = 100;

interface Figure {
  readonly answer: string;
  readonly first_token_p50_ms: number;
  readonly whole_p50_ms: number;
  readonly calls_per_request: number;
}

/** Prints a table, and with --json the result in one last line. */
export async function caches(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { requests: { type: "string", default: "50" }, json: { type: "boolean" } },
  });
  let calls = 0;
  const scratch = await openScratchDatabase();
  const model = await startOfflineModel({ onCall: () => (calls += 1) });
  const server = await startServer(["serve"], scratch.url, model.url);
  try {
    const requests = Number(values.requests);
    const questions = Array.from({ length: requests }, () => `What is ${randomUUID()}?`);
    await ask(server.url, "the first is slower");
    const measure = async (answer: string): Promise<Figure> => {
      calls = 0;
      const [first, whole]: [number[], number[]] = [[], []];
      for (const question of questions) {
        const one = await ask(server.url, question);
        first.push(one.first);
        whole.push(one.whole);
      }
      return {
        answer,
        first_token_p50_ms: round(quantile(first, 0.5)),
        whole_p50_ms: round(quantile(whole, 0.5)),
        calls_per_request: calls / requests,
      };
    };
    const figures = [await measure("miss"), await measure("hit")];
    calls = 0;
    await Promise.all(Array.from({ length: TOGETHER }, () => ask(server.url, "the same for all")));
    const result = { figures, together: TOGETHER, calls_for_them: calls };
    if (values.json) console.log(JSON.stringify(result));
    else {
      console.table(figures);
      console.log(`${TOGETHER} equal requests at once: ${calls} call`);
    }
  } finally {
    await server.stop();
    await model.stop();
    await scratch.close();
  }
}

async function ask(url: string, content: string): Promise<{ first: number; whole: number }> {
  const startedAt = performance.now();
  const run = {
    assistant_id: "cached",
    input: { messages: [{ role: "user", content }] },
    stream_mode: "messages-tuple",
  };
  const first = await until(`${url}/runs/stream`, run, /"content":"[^"]/);
  return { first, whole: performance.now() - startedAt };
}

const round = (value: number): number => Math.round(value * 10) / 10;

// What a call costs that does not fail, without a network: for the call, and for each chunk of its stream.
import { performance } from "node:perf_hooks";
import { policyOf } from "../../server/models/resilience/policy.ts";
import { Resilience } from "../../server/models/resilience/resilience.ts";

const CHUNKS = 100_000;
const CALLS = 5000;
const ROUNDS = 5;

/** In microseconds, of the best of some rounds. */
export async function measureCost(): Promise<Record<string, number>> {
  const resilience = new Resilience({ policyOf: () => policyOf(60_000) });
  const through = async (chunks: number): Promise<void> => {
    const { response } = await resilience.ask({ chain: ["m"], tokens: 1, send: async () => stream(chunks) });
    await drain(response);
  };
  const [chunk, bareChunk] = [await best(() => through(CHUNKS)), await best(() => drain(stream(CHUNKS)))];
  const [call, bareCall] = [
    await best(() => times(CALLS, () => through(2))),
    await best(() => times(CALLS, () => drain(stream(2)))),
  ];
  return {
    chunk_us: round((chunk - bareChunk) / CHUNKS),
    chunk_bare_us: round(bareChunk / CHUNKS),
    call_us: round((call - bareCall) / CALLS),
  };
}

function stream(chunks: number): Response {
  const token = new TextEncoder().encode(`data: {"choices":[{"delta":{"content":" token"}}]}\n\n`);
  let left = chunks;
  const body = new ReadableStream<Uint8Array>(
    {
      pull: (controller) => {
        if (left === 0) controller.close();
        else controller.enqueue(token);
        left -= 1;
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(body, { headers: { "content-type": "text/event-stream" } });
}

async function drain(response: Response): Promise<void> {
  const reader = response.body?.getReader();
  for (let isDone = reader === undefined; !isDone; isDone = (await reader?.read())?.done ?? true);
}

async function times(count: number, work: () => Promise<void>): Promise<void> {
  for (let nth = 0; nth < count; nth += 1) await work();
}

async function best(work: () => Promise<void>): Promise<number> {
  let least = Infinity;
  for (let nth = 0; nth < ROUNDS; nth += 1) {
    const start = performance.now();
    await work();
    least = Math.min(least, (performance.now() - start) * 1000);
  }
  return least;
}

const round = (value: number): number => Math.round(value * 100) / 100;

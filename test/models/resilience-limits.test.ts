// Laws of the parts: places and buckets let through exactly what they say, bytes are replayed as they came, and what a
// provider says of waiting is understood.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { withBody } from "../../server/models/answer-body.ts";
import { Bucket } from "../../server/models/resilience/bucket.ts";
import { Bulkhead } from "../../server/models/resilience/bulkhead.ts";
import { policyOf } from "../../server/models/resilience/policy.ts";
import { refusalOf, waitForLimits } from "../../server/models/resilience/refusal.ts";
import { Resilience } from "../../server/models/resilience/resilience.ts";

const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));

describe("places", () => {
  test("never are more taken than there are, and all who wait get one in their order", async () => {
    const bulkhead = new Bulkhead({ concurrent: 3, queue: 100 });
    const order: number[] = [];
    let [inside, most] = [0, 0];
    const visit = async (nth: number): Promise<void> => {
      const leave = await bulkhead.enter(10_000);
      order.push(nth);
      most = Math.max(most, (inside += 1));
      await turn();
      inside -= 1;
      leave?.();
    };
    await Promise.all(Array.from({ length: 50 }, (_, nth) => visit(nth)));

    expect(most).toBe(3);
    expect(order).toEqual(Array.from({ length: 50 }, (_, nth) => nth));
    expect(bulkhead.isIdle).toBe(true);
  });

  test("who comes when the queue is full, or waits too long, gets none; leaving twice frees one", async () => {
    const bulkhead = new Bulkhead({ concurrent: 1, queue: 1 });
    const leave = await bulkhead.enter(10_000);
    const waiting = bulkhead.enter(10);
    expect(await bulkhead.enter(10_000)).toBeUndefined();
    expect(await waiting).toBeUndefined();

    leave?.();
    leave?.();
    expect(await bulkhead.enter(0)).toBeDefined();
    expect(await bulkhead.enter(0)).toBeUndefined();
  });

  test("a waiter that leaves in the turn in which it would have its place passes the place on", async () => {
    const bulkhead = new Bulkhead({ concurrent: 1, queue: 2 });
    const leave = await bulkhead.enter(10_000);
    const leaving = new AbortController();
    const second = bulkhead.enter(10_000, leaving.signal);
    const third = bulkhead.enter(10_000);
    leave?.();
    leaving.abort(new Error("gone"));

    await expect(second).rejects.toThrow("gone");
    expect(await third).toBeDefined();
  });
});

// The microtasks between the last read of the head and the first one of the rest are not to be counted from here.
test.each(Array.from({ length: 16 }, (_, gap) => [gap]))(
  "a place is free again when its call is aborted %d microtasks after the first token",
  async (gap) => {
    const policy = policyOf(5000, { concurrent: 1, queue_ms: 100, retries: 0 });
    const resilience = new Resilience({ policyOf: () => policy });
    const leaving = new AbortController();
    const begun = Buffer.from(`data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}\n\n`);
    const pieces = [begun];
    const source = {
      read: async () => {
        const value = pieces.shift();
        if (!value) return Promise.withResolvers<never>().promise;
        void (async () => {
          for (let hop = 0; hop < gap; hop += 1) await Promise.resolve();
          leaving.abort(new Error("gone"));
        })();
        return { done: false, value };
      },
      cancel: async () => undefined,
    };
    const streamed = new Response(null, { headers: { "content-type": "text/event-stream" } });
    const ask = { chain: ["m"], tokens: 1, signal: leaving.signal };
    await resilience.ask({ ...ask, send: async () => withBody(streamed, source) }).catch(() => undefined);
    await turn();

    const next = { chain: ["m"], tokens: 1, send: async () => Response.json({}) };
    await expect(resilience.ask(next)).resolves.toMatchObject({ calls: 1 });
  },
);

describe("buckets", () => {
  test("never more leaves than one minute's worth and what has filled in since", async () => {
    const size = 6000;
    const bucket = new Bucket({ tokens: size });
    const began = Date.now();
    let taken = 0;
    const take = async (tokens: number): Promise<void> => {
      expect(await bucket.take(tokens, 10_000)).toBe(true);
      taken += tokens;
      expect(taken).toBeLessThanOrEqual(size + ((Date.now() - began) * size) / 60_000);
    };
    await Promise.all([take(3000), take(2990), ...Array.from({ length: 20 }, () => take(3))]);

    expect(taken).toBe(6050);
  });

  test("exactly as many requests as a minute has are let through at once", async () => {
    const bucket = new Bucket({ requests: 7 });
    const taken = await Promise.all(Array.from({ length: 50 }, async () => bucket.take(1, 0)));

    expect(taken.filter(Boolean)).toHaveLength(7);
  });

  test("what cannot be had in time is not taken", async () => {
    const bucket = new Bucket({ requests: 100, tokens: 100 });

    expect(await bucket.take(60, 0)).toBe(true);
    expect(await bucket.take(60, 10)).toBe(false);
    expect(await bucket.take(40, 0)).toBe(true);
  });

  test("a request larger than the bucket takes all of it, and is not waited for in vain", async () => {
    const bucket = new Bucket({ tokens: 100 });

    expect(await bucket.take(1_000_000, 0)).toBe(true);
    expect(await bucket.take(1, 0)).toBe(false);
  });

  test("a caller that leaves gives back what it would have got", async () => {
    const bucket = new Bucket({ tokens: 6000 });
    await bucket.take(5900, 0);
    const leaving = new AbortController();
    const waiting = bucket.take(6000, 60_000, leaving.signal);
    leaving.abort(new Error("gone"));

    await expect(waiting).rejects.toThrow("gone");
    expect(await bucket.take(100, 0)).toBe(true);
  });

  test("a pause holds back those who wait already", async () => {
    const bucket = new Bucket({ tokens: 6000 });
    await bucket.take(6000, 0);
    const waiting = bucket.take(30, 5000);
    bucket.pause(60_000);

    expect(await waiting).toBe(false);
    expect(await bucket.take(1, 5000)).toBe(false);
  });
});

const frame = (delta: object): string => `data: ${JSON.stringify({ choices: [{ delta }] })}\r\n\r\n`;

test("what was read to find the first token is replayed byte for byte, however it came in pieces", async () => {
  const role = frame({ role: "assistant", content: "" });
  const bytes = new TextEncoder().encode(
    `: hello\n\n${role}${frame({ content: "Grüße 🌊" })}data: [DONE]\n\n`,
  );
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: 1, max: 60 }), { maxLength: 40 }), async (sizes) => {
      const body = ReadableStream.from(piecesOf(bytes, sizes));
      const send = async (): Promise<Response> =>
        new Response(body, { headers: { "content-type": "text/event-stream" } });
      const resilience = new Resilience({ policyOf: () => policyOf(5000) });
      const { response, calls } = await resilience.ask({ chain: ["m"], tokens: 1, send });
      expect(new Uint8Array(await response.arrayBuffer())).toEqual(bytes);
      expect(calls).toBe(1);
    }),
    { numRuns: 100 },
  );
});

function* piecesOf(bytes: Uint8Array, sizes: readonly number[]): Generator<Uint8Array> {
  let at = 0;
  for (const size of sizes) {
    if (at < bytes.length) yield bytes.subarray(at, at + size);
    at += size;
  }
  if (at < bytes.length) yield bytes.subarray(at);
}

const showing: [string, object, number][] = [
  ["a tool call", { choices: [{ delta: { tool_calls: [{ index: 0 }] } }] }, 1],
  ["reasoning", { choices: [{ delta: { reasoning_content: "Hm" } }] }, 1],
  ["a finish reason", { choices: [{ delta: {}, finish_reason: "stop" }] }, 1],
  ["nothing but a role", { choices: [{ delta: { role: "assistant", content: "" } }] }, 2],
  ["the findings of a filter", { choices: [], prompt_filter_results: [] }, 2],
  ["an error", { error: { message: "overloaded" } }, 2],
];

test.each(showing)("a stream that ends after %s was asked for so many times", async (_, shown, expected) => {
  const send = async (): Promise<Response> =>
    new Response(`data: ${JSON.stringify(shown)}\n\n`, { headers: { "content-type": "text/event-stream" } });
  const policy = policyOf(5000, { retries: 1, retry_base_ms: 0 });
  let calls = 0;
  const asked = new Resilience({ policyOf: () => policy }).ask({
    chain: ["m"],
    tokens: 1,
    send: async () => {
      calls += 1;
      return send();
    },
  });
  await asked.catch(() => undefined);

  expect(calls).toBe(expected);
});

test.each([
  ["an error comes in it", `data: {"error":{}}\n\n`],
  ["its caller leaves", ": nothing yet\n\n"],
])("a body that knows no signal is closed when %s", async (_, text) => {
  const leaving = new AbortController();
  const closed = Promise.withResolvers<string>();
  const body = new ReadableStream({
    start: (controller) => controller.enqueue(new TextEncoder().encode(text)),
    cancel: () => closed.resolve("closed"),
  });
  const headers = { "content-type": "text/event-stream" };
  const asked = new Resilience({ policyOf: () => policyOf(5000, { retries: 0 }) }).ask({
    chain: ["m"],
    tokens: 1,
    send: async () => new Response(body, { headers }),
    signal: leaving.signal,
  });
  if (text.startsWith(":")) setImmediate(() => leaving.abort(new Error("gone")));

  await expect(asked).rejects.toThrow(/gone|broke before its first token/);
  expect(await closed.promise).toBe("closed");
});

test("a refusal that is handed on does not tell how its body was packed", () => {
  const headers = { "content-encoding": "gzip", "content-length": "9", "content-type": "application/json" };
  const { response } = refusalOf(new Response("packed", { status: 400, headers }), Buffer.from("{}"));

  expect([...response.headers]).toEqual([["content-type", "application/json"]]);
});

test.each([
  [{ "retry-after": "2" }, 2000],
  [{ "retry-after": "2", "retry-after-ms": "150.5" }, 150.5],
  [{ "retry-after": "Wed, 21 Oct 2015 07:28:00 GMT" }, 0],
  [{ "retry-after": "soon" }, undefined],
  [{}, undefined],
])("%j asks to wait %s ms", (headers, expected) => {
  const response = new Response("{}", { status: 429, headers });
  expect(refusalOf(response, new Uint8Array()).waitMs).toBe(expected);
});

const limits = (kind: string, left: string, reset: string, limit?: string): Record<string, string> => ({
  [`x-ratelimit-remaining-${kind}`]: left,
  [`x-ratelimit-reset-${kind}`]: reset,
  ...(limit ? { [`x-ratelimit-limit-${kind}`]: limit } : {}),
});

test.each([
  [limits("requests", "1", "6m0s"), 0],
  [limits("requests", "0", "6m0s"), 360_000],
  [limits("requests", "0", "1m0s", "60"), 1000],
  [limits("tokens", "40", "1h2m3.5s"), 3_723_500],
  [limits("tokens", "40", "30s", "1040"), 1800],
  [limits("tokens", "0", "12ms"), 12],
  [limits("tokens", "0", "tomorrow"), 0],
])("after %j a request of 100 tokens waits %i ms", (headers, expected) => {
  expect(waitForLimits(new Headers(headers), 100)).toBe(expected);
});

// Equal requests at the same time share an answer, and none of them waits for another that waits for it.
import { getEventListeners } from "node:events";
import { afterAll, beforeAll, expect, test } from "vitest";
import { ResponseCache } from "../../server/models/caching/responses.ts";
import { readChat } from "../../server/models/gateway/chat-call.ts";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { openTestCaches } from "../support/caches.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

const guard = openPrivacy({ mode: "off", graphs: {}, rules: [], names: false }).of();
const usage = { prompt_tokens: 1, completion_tokens: 1 };
const STREAM = [
  { model: "m", created: 1, choices: [{ index: 0, delta: { content: "Yes." }, finish_reason: "stop" }] },
  { model: "m", created: 1, choices: [], usage },
]
  .map((frame) => `data: ${JSON.stringify(frame)}\n\n`)
  .join("")
  .concat("data: [DONE]\n\n");
const message = { role: "assistant", content: "Yes." };
const WHOLE = JSON.stringify({
  model: "m",
  created: 1,
  choices: [{ index: 0, message, finish_reason: "stop" }],
  usage,
});

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

interface Asked {
  /** Calls that were made. */
  calls: number;
  readonly ask: (text: string, signal?: AbortSignal) => Promise<Response>;
}

async function asking(isStream: boolean, answer = isStream ? STREAM : WHOLE): Promise<Asked> {
  const { caches } = await openTestCaches(scratch.database);
  const cache = new ResponseCache(caches, { rule: "deterministic", ttlMs: 60_000 });
  const asked: Asked = {
    calls: 0,
    ask: (content, signal) => {
      const sent = { model: "m", temperature: 0, stream: isStream, messages: [{ role: "user", content }] };
      const body = readChat(JSON.stringify(sent));
      if (!body) throw new Error("It is a request.");
      const request = {
        url: "http://provider/chat/completions",
        init: signal ? { signal } : {},
        body: JSON.stringify(sent),
      };
      return cache.answer(
        { request, wish: undefined, body, model: "m", totalMs: 60_000 },
        { guard },
        async () => {
          asked.calls += 1;
          const type = isStream ? "text/event-stream" : "application/json";
          return { response: new Response(answer, { headers: { "content-type": type } }), model: "m" };
        },
      );
    },
  };
  return asked;
}

test("two equal requests whose answers are read only when both are there get both", async () => {
  for (const isStream of [false, true]) {
    const asked = await asking(isStream);
    const both = await Promise.all([asked.ask(`both ${isStream}`), asked.ask(`both ${isStream}`)]);
    const texts = await Promise.all(both.map((one) => one.text()));
    for (const text of texts) expect(text).toContain("Yes.");
    // One in one piece is known before it is read; a stream that nobody reads is given up after a while.
    expect(asked.calls).toBe(isStream ? 2 : 1);
    expect(await (await asked.ask(`both ${isStream}`)).text()).toContain("Yes.");
    expect(asked.calls, "the answer is kept all the same").toBe(isStream ? 2 : 1);
  }
}, 20_000);

test("a stream whose reader rests in the middle keeps nobody waiting", async () => {
  const asked = await asking(true);
  const resting = (await asked.ask("rest")).body?.getReader();
  await resting?.read();
  expect(await (await asked.ask("rest")).text()).toContain("Yes.");
  await resting?.cancel();
}, 20_000);

test("a request leaves no listener on the signal it came with", async () => {
  const { signal } = new AbortController();
  for (const isStream of [false, true]) {
    const asked = await asking(isStream);
    for (const text of ["a", "b", "a"])
      await (await asked.ask(`listener ${text} ${isStream}`, signal)).text();
  }
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

// Laws of calls to a model that fails, against a provider on loopback that plays scripts.
import { afterAll, afterEach, beforeAll, expect, test } from "vitest";
import { BudgetExceeded, ModelBusy, ModelFailed } from "../../server/errors.ts";
import type { Script } from "../../server/models/offline/scripts.ts";
import { refuse, rig, startProvider, textOf, WELL } from "../support/provider.ts";
import type { Provider } from "../support/provider.ts";
import { until } from "../support/until.ts";

let provider: Provider;
beforeAll(async () => {
  provider = await startProvider();
  // Its first answer waits until it can count tokens.
  const { response } = await rig(provider).ask();
  await response.text();
  provider.reset();
});
afterEach(() => provider.reset());
afterAll(() => provider.stop());

const SHORT = { connect_ms: 250, first_token_ms: 250, between_tokens_ms: 250 };
const beforeToken = (ending: Script["ending"]): Script => ({ pieces: [], ...(ending ? { ending } : {}) });
const passing: [string, Script][] = [
  ...[408, 409, 429, 500, 502, 503].map((status): [string, Script] => [`HTTP ${status}`, refuse(status)]),
  ["a cut before the first token", beforeToken("cut")],
  ["an end before the first token", beforeToken("no-finish")],
  ["a frame that is not JSON before the first token", beforeToken("bad-json")],
];

test.each(passing)("a call that fails with %s is made again", async (_, script) => {
  provider.play(script, WELL);
  const { response, calls } = await rig(provider).ask();

  expect(textOf(await response.text())).toBe("All is well.");
  expect(calls).toBe(2);
});

const silent: [string, string, Script][] = [
  ["headers", "connect_ms", { isSilent: true }],
  ["the first token", "first_token_ms", beforeToken("stall")],
];

test.each(silent)("a call that waits too long for %s is made again", async (_, limit, script) => {
  provider.play(script, WELL);
  const { ask, events } = rig(provider, { ...SHORT, retries: 20 });
  const { response } = await ask();

  expect(textOf(await response.text())).toBe("All is well.");
  expect(events[0]).toMatchObject({ type: "call", what: `sent nothing for 250 ms (${limit})` });
  await until(() => provider.calls[0]?.aborted ?? false, "the first call's connection to close");
});

const lasting: [string, Script, number][] = [
  ...[400, 401, 403, 404, 422].map((status): [string, Script, number] => [
    `${status}`,
    refuse(status),
    status,
  ]),
  ["429 for a spent quota", refuse(429, {}, "insufficient_quota"), 429],
];

test.each(lasting)("a refusal with %s is handed on at once as it came", async (_, script, status) => {
  provider.play(script);
  const { response, calls, model } = await rig(provider).ask({ chain: ["m", "other"] });

  expect({ status: response.status, calls, model }).toEqual({ status, calls: 1, model: "m" });
  expect(response.headers.get("content-type")).toBe("application/json");
  expect(await response.json()).toMatchObject({ error: { code: script.refusal?.code } });
  expect(provider.calls).toHaveLength(1);
});

test("a refusal's body is read up to a bound", async () => {
  provider.play({ refusal: { status: 400, code: "long", message: "x".repeat(1_000_000) } });
  const { response } = await rig(provider).ask();

  expect(response.status).toBe(400);
  expect((await response.arrayBuffer()).byteLength).toBe(64 * 1024);
});

test("a network error is tried again, and named when it stays", async () => {
  const asked = rig(provider, { retries: 1 }).ask({ send: () => fetch("http://127.0.0.1:1/") });

  await expect(asked).rejects.toThrow(/^No model answered \(m: network error \w+\)/);
  await expect(asked).rejects.toBeInstanceOf(ModelFailed);
});

test("once a token was shown nothing is made again: a cut is an error of the stream", async () => {
  provider.play({ pieces: ["half"], ending: "cut" });
  const { response } = await rig(provider).ask({ chain: ["m", "other"] });

  await expect(response.text()).rejects.toThrow("terminated");
  expect(provider.calls).toHaveLength(1);
});

test("a silence within an answer ends it and its connection", async () => {
  provider.play({ pieces: ["half"], ending: "stall" });
  const { response } = await rig(provider, SHORT).ask();

  await expect(response.text()).rejects.toThrow("sent nothing for 250 ms (between_tokens_ms)");
  await until(() => provider.calls[0]?.aborted ?? false, "the provider's connection to close");
  expect(provider.calls).toHaveLength(1);
});

test("a reader that takes its time is no silence of the model", async () => {
  provider.play({ pieces: Array.from({ length: 10 }, () => " on"), delayMs: 5 });
  const { response } = await rig(provider, SHORT).ask();
  const reader = response.body?.getReader();
  for (let nth = 0; nth < 5; nth += 1) await reader?.read();
  await new Promise((resolve) => setTimeout(resolve, 2 * SHORT.between_tokens_ms));

  for (let part = await reader?.read(); part && !part.done; part = await reader?.read());
  await expect(reader?.closed).resolves.toBeUndefined();
});

test("an answer that takes longer than all of its time is ended, however it trickles", async () => {
  provider.play({ pieces: Array.from({ length: 1000 }, () => " on"), delayMs: 5 });
  const { response } = await rig(provider, { total_ms: 500 }).ask();

  await expect(response.text()).rejects.toThrow("total_ms");
});

test("an answer in one piece is handed on whole, and one that is cut is made again", async () => {
  provider.play({ pieces: ["half"], ending: "cut" }, WELL);
  const { response, calls } = await rig(provider).ask({
    isStream: false,
    send: (call) => provider.send(call, { stream: false }),
  });

  expect(await response.json()).toMatchObject({ choices: [{ message: { content: "All is well." } }] });
  expect(calls).toBe(2);
});

test("an answer in one piece may take longer than headers may", async () => {
  const slow = async (): Promise<Response> => {
    await new Promise((resolve) => setTimeout(resolve, 2 * SHORT.connect_ms));
    return Response.json({ late: true });
  };
  const { response, calls } = await rig(provider, SHORT).ask({ isStream: false, send: slow });

  expect(await response.json()).toEqual({ late: true });
  expect(calls).toBe(1);
});

test("a model that keeps failing is replaced by its fallback", async () => {
  provider.play(refuse(500), refuse(500), WELL);
  const { response, model, calls } = await rig(provider, { retries: 1 }).ask({ chain: ["m", "other"] });

  expect({ model, calls, text: textOf(await response.text()) }).toEqual({
    model: "other",
    calls: 3,
    text: "All is well.",
  });
  expect(provider.calls.map((call) => call.model)).toEqual(["m", "m", "other"]);
});

test("when all fail, the last refusal is handed on", async () => {
  provider.play({ isSilent: true }, refuse(503));
  const { response, model } = await rig(provider, { ...SHORT, retries: 0 }).ask({ chain: ["m", "other"] });

  expect({ status: response.status, model }).toEqual({ status: 503, model: "other" });
});

test("when all fail and the last did not answer, the error names what happened to each", async () => {
  provider.play(refuse(503), { isSilent: true });
  const asked = rig(provider, { ...SHORT, retries: 0 }).ask({ chain: ["m", "other"] });

  await expect(asked).rejects.toThrow("(m: HTTP 503; other: sent nothing for 250 ms (connect_ms))");
});

test.each([
  ["retry-after-ms", "50"],
  ["retry-after", "0.05"],
])("the wait that a provider asks for in %s is kept before the retry", async (header, value) => {
  provider.play(refuse(429, { [header]: value }), WELL);
  const { ask, events } = rig(provider, { retry_max_ms: 1 });
  const { response } = await ask();

  expect(response.status).toBe(200);
  expect(events.find(({ type }) => type === "retry")).toMatchObject({ what: "HTTP 429" });
  const waits = events.map((event) => (event.type === "retry" ? event.waitMs : 50));
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(50);
});

test("a model that asks for a long wait is not waited for when another could answer", async () => {
  provider.play(refuse(429, { "retry-after": "30" }), WELL);
  const { ask } = rig(provider);
  const first = await ask({ chain: ["m", "other"] });
  const second = await ask({ chain: ["m", "other"] });

  expect([first.model, second.model]).toEqual(["other", "other"]);
  expect(provider.calls.map(({ model }) => model)).toEqual(["m", "other", "other"]);
});

test("a wait longer than the time that is left is not begun", async () => {
  provider.play(refuse(429, { "retry-after": "30" }));
  const { response, calls } = await rig(provider, { total_ms: 5000 }).ask();

  expect({ status: response.status, calls }).toEqual({ status: 429, calls: 1 });
});

test("a model that asked for a pause is not called meanwhile", async () => {
  provider.play(refuse(429, { "retry-after": "30" }));
  const { ask } = rig(provider, { queue_ms: 20, total_ms: 5000 });
  await ask();

  const second = ask();
  await expect(second).rejects.toBeInstanceOf(ModelBusy);
  await expect(second).rejects.toMatchObject({ code: "model_busy", status: 503, retryable: true });
  expect(provider.calls).toHaveLength(1);
});

test("an error of our own is passed on as it is and says nothing of the model", async () => {
  const refused = new BudgetExceeded("spent");
  const { ask, resilience } = rig(provider, { breaker_min_calls: 1 });
  const send = async (): Promise<Response> => Promise.reject(refused);

  await expect(ask({ send, chain: ["m", "other"] })).rejects.toBe(refused);
  expect([...resilience.states()]).toEqual([["m", "closed"]]);
});

test("more calls than may be under way are refused, and the place comes back with the end of the answer", async () => {
  const { ask } = rig(provider, { concurrent: 1, queue: 0 });
  const first = await ask();

  await expect(ask()).rejects.toBeInstanceOf(ModelBusy);
  await first.response.text();
  expect((await ask()).response.status).toBe(200);
});

test("a call that fails leaves its place", async () => {
  provider.play(refuse(500), { isSilent: true });
  const { ask } = rig(provider, { ...SHORT, retries: 0, concurrent: 1, queue: 0 });
  await ask();
  await expect(ask()).rejects.toBeInstanceOf(ModelFailed);

  expect((await ask()).response.status).toBe(200);
});

test("a busy model is replaced by its fallback", async () => {
  const { ask } = rig(provider, { concurrent: 1, queue: 0 });
  await ask();

  expect((await ask({ chain: ["m", "other"] })).model).toBe("other");
});

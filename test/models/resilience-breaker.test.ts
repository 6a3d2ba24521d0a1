// Laws of the circuit breaker and of callers that leave, against a provider on loopback that plays scripts.
import { afterAll, afterEach, beforeAll, expect, test, vi } from "vitest";
import { ModelFailed } from "../../server/errors.ts";
import { refuse, rig, startProvider, WELL } from "../support/provider.ts";
import type { Provider, Rig } from "../support/provider.ts";
import { until } from "../support/until.ts";

let provider: Provider;
beforeAll(async () => {
  provider = await startProvider();
});
afterEach(() => provider.reset());
afterAll(() => provider.stop());

const EAGER = { retries: 0, breaker_min_calls: 2, breaker_window: 4, breaker_open_ms: 60_000 };
const BRIEF = { ...EAGER, breaker_open_ms: 30 };

/** Asks once, reads what comes, and tells how it went. */
async function went({ ask }: Rig): Promise<number | string> {
  try {
    const { response } = await ask();
    await response.text();
    return response.status;
  } catch (error) {
    return error instanceof ModelFailed ? error.message : "cut";
  }
}

test("a breaker opens when enough calls failed, and then lets nothing through until a time that it tells", async () => {
  provider.play(refuse(500), refuse(500));
  const onOpen = vi.fn<(model: string, ms: number) => void>();
  const it = rig(provider, EAGER, { onOpen });

  expect([await went(it), await went(it)]).toEqual([500, 500]);
  expect(await went(it)).toMatch(/m: breaker open until \d{4}-\d\d-\d\dT[\d:.]+Z/);
  expect(onOpen.mock.calls).toEqual([["m", 60_000]]);
  expect(provider.calls).toHaveLength(2);
});

test("a breaker that opens ends the retries", async () => {
  provider.play(refuse(500), refuse(500), WELL);
  const it = rig(provider, { ...EAGER, retries: 5 });
  const { response, calls } = await it.ask();

  expect({ status: response.status, calls }).toEqual({ status: 500, calls: 2 });
  expect(it.events.filter(({ type }) => type === "retry")).toHaveLength(1);
});

test("fewer failures than the share leave it closed", async () => {
  provider.play(WELL, refuse(500), WELL, refuse(500), WELL);
  const it = rig(provider, EAGER);

  const all = [];
  for (let nth = 0; nth < 5; nth += 1) all.push(await went(it));
  expect(all).toEqual([200, 500, 200, 500, 200]);
  expect(it.resilience.states().get("m")).toBe("closed");
});

test.each([429, 404, 409])("HTTP %i does not open it", async (status) => {
  provider.play(refuse(status), refuse(status), refuse(status));
  const it = rig(provider, EAGER);

  expect([await went(it), await went(it), await went(it)]).toEqual([status, status, status]);
  expect(it.resilience.states().get("m")).toBe("closed");
});

test("an answer that breaks in the middle counts as a failure", async () => {
  provider.play({ pieces: ["half"], ending: "cut" }, { pieces: ["half"], ending: "cut" });
  const it = rig(provider, EAGER);

  expect([await went(it), await went(it)]).toEqual(["cut", "cut"]);
  expect(it.resilience.states().get("m")).toBe("open");
});

test("an answer that falls silent in the middle counts as a failure", async () => {
  provider.play({ pieces: ["half"], ending: "stall" }, { pieces: ["half"], ending: "stall" });
  const it = rig(provider, { ...EAGER, between_tokens_ms: 30 });

  expect(await went(it)).toContain("between_tokens_ms");
  expect(await went(it)).toContain("between_tokens_ms");
  expect(it.resilience.states().get("m")).toBe("open");
});

test("after its time one call tries, and its first token closes it", async () => {
  provider.play(refuse(500), refuse(500));
  const it = rig(provider, BRIEF);
  await went(it);
  await went(it);

  await until(async () => (await went(it)) === 200, "the breaker to let a call through");
  expect(it.events.flatMap((event) => (event.type === "breaker" ? [event.state] : []))).toEqual([
    "open",
    "half-open",
    "closed",
  ]);
  expect(provider.calls).toHaveLength(3);
});

test("a call that tries and fails opens it again", async () => {
  provider.play(refuse(500), refuse(500), refuse(500));
  const onOpen = vi.fn<(model: string, ms: number) => void>();
  const it = rig(provider, BRIEF, { onOpen });
  await went(it);
  await went(it);

  await until(async () => (await went(it)) === 500, "the breaker to let a call through");
  expect(it.resilience.states().get("m")).toBe("open");
  expect(onOpen).toHaveBeenCalledTimes(2);
});

test("while one call tries, all others are refused; one that leaves makes room for the next", async () => {
  provider.play(refuse(500), refuse(500), { isSilent: true });
  const it = rig(provider, BRIEF);
  await went(it);
  await went(it);
  const left = new AbortController();
  const tries = { ask: () => it.ask({ signal: left.signal }) };
  const trial = until(
    async () => (await went({ ...it, ...tries })) === "cut",
    "the call that tries to leave",
  );
  await until(() => provider.calls.length === 3, "the call that tries");

  expect(await went(it)).toContain("a call tries it");
  left.abort(new Error("gone"));
  await trial;
  expect(await went(it)).toBe(200);
});

test("a model that another process found down is not called, and that is not told again", async () => {
  const onOpen = vi.fn<(model: string, ms: number) => void>();
  const it = rig(provider, {}, { onOpen });
  it.resilience.isolate("m", 60_000);

  expect(await went(it)).toContain("breaker open until");
  expect(it.resilience.states().get("m")).toBe("isolated");
  expect((await it.ask({ chain: ["m", "other"] })).model).toBe("other");
  expect(onOpen).not.toHaveBeenCalled();
});

test("a model that another process found down is tried when its time is over", async () => {
  const it = rig(provider);
  it.resilience.isolate("m", 20);

  await until(async () => (await went(it)) === 200, "the model to be tried");
  expect(it.resilience.states().get("m")).toBe("closed");
});

test("such a try that fails opens the breaker of this process", async () => {
  provider.play(refuse(500));
  const it = rig(provider, { ...EAGER, breaker_min_calls: 4 });
  it.resilience.isolate("m", 20);

  await until(async () => (await went(it)) === 500, "the model to be tried");
  expect(it.resilience.states().get("m")).toBe("open");
});

const waits: [string, Parameters<Provider["play"]>, object][] = [
  ["headers", [{ isSilent: true }], {}],
  ["the first token", [{ pieces: [], ending: "stall" }], {}],
  ["a retry", [refuse(500)], { retry_base_ms: 60_000, retry_max_ms: 60_000, breaker_min_calls: 2 }],
];

test.each(waits)(
  "a caller that leaves while it waits for %s stops everything at once",
  async (_, scripts, policy) => {
    provider.play(...scripts);
    const it = rig(provider, { concurrent: 1, queue: 0, breaker_min_calls: 1, ...policy });
    const leaving = new AbortController();
    const reason = new Error("the caller left");
    const asked = it.ask({ signal: leaving.signal });
    await until(() => provider.calls.length === 1, "the call");
    leaving.abort(reason);

    await expect(asked).rejects.toBe(reason);
    expect((await it.ask()).response.status).toBe(200);
    await until(
      () => Boolean(provider.calls[0]?.aborted) || scripts[0]?.refusal !== undefined,
      "the connection to close",
    );
  },
);

test("a caller that leaves within an answer gets its own reason, and its place is free", async () => {
  provider.play({ pieces: ["half"], ending: "stall" });
  const it = rig(provider, { concurrent: 1, queue: 0, breaker_min_calls: 1 });
  const leaving = new AbortController();
  const { response } = await it.ask({ signal: leaving.signal });
  const reading = response.text();
  leaving.abort(new Error("the caller left"));

  await expect(reading).rejects.toThrow("the caller left");
  expect(await went(it)).toBe(200);
  await until(() => provider.calls[0]?.aborted ?? false, "the connection to close");
});

test("a reader that wants no more closes the connection, and its place is free", async () => {
  provider.play({ pieces: ["half"], ending: "stall" });
  const it = rig(provider, { concurrent: 1, queue: 0 });
  const { response } = await it.ask();
  await response.body?.cancel();

  expect(await went(it)).toBe(200);
  await until(() => provider.calls[0]?.aborted ?? false, "the connection to close");
});

test("a caller that leaves while it waits for a place leaves no trace", async () => {
  const it = rig(provider, { concurrent: 1, queue: 1 });
  const first = await it.ask();
  const leaving = new AbortController();
  const second = it.ask({ signal: leaving.signal });
  leaving.abort(new Error("the caller left"));

  await expect(second).rejects.toThrow("the caller left");
  const third = it.ask();
  await first.response.text();
  expect((await third).response.status).toBe(200);
  expect(provider.calls).toHaveLength(2);
});

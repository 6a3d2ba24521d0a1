// A run that began before anybody followed its thread, and still goes on: what who comes in its midst gets to see.
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { expect, test } from "vitest";
import { newName, newThread, usePair } from "../fixtures/pair.ts";
import { watch } from "../support/protocol.ts";
import type { Event } from "../support/protocol.ts";
import { until } from "../support/until.ts";

const pair = usePair();

const valuesIn = (events: readonly Event[]): unknown[] =>
  events.filter(({ method }) => method === "values").map(({ params }) => params.data["log"]);

const isOver = (events: readonly Event[]): boolean => events.at(-1)?.method === "lifecycle";

async function begun(settings: object = {}): Promise<{ name: string; threadId: string; runId: string }> {
  const [name, threadId] = [newName(), await newThread(pair.here)];
  const { run_id: runId } = await pair.here.client.runs.create(threadId, "climbs", {
    input: { name, gate: pair.gate.url },
    ...settings,
  });
  await pair.gate.waitFor(`${name}-1`);
  return { name, threadId, runId };
}

test("who comes in its midst is told its values after each superstep, the same ones on every server", async () => {
  const { name, threadId } = await begun();
  const gone = new AbortController();
  const seen = await Promise.all(
    [pair.here, pair.there].map(({ url }) => watch({ url, fetch }, threadId, gone.signal)),
  );
  const [here, there] = seen as [Event[], Event[]];
  pair.gate.open(`${name}-1`);
  await pair.gate.waitFor(`${name}-2`);
  const all = async (logs: string[]): Promise<void> =>
    until(
      () => seen.every((events) => String(valuesIn(events).at(-1)) === String(logs)),
      `values ${logs.join()}`,
    );
  await all([`${name}-1`]);
  // Who loses the connection goes on behind what he has, at the other server.
  const later = await watch({ url: pair.there.url, fetch }, threadId, gone.signal, {
    since: here.at(-1)?.seq,
  });
  pair.gate.open(`${name}-2`);
  await pair.gate.waitFor(`${name}-3`);
  await all([`${name}-1`, `${name}-2`]);
  await until(() => later.length > 0, "the values behind the cursor");
  expect(valuesIn(later)).toEqual([[`${name}-1`, `${name}-2`]]);
  const state = await pair.here.client.threads.getState(threadId);
  expect(here.at(-1)?.params.data).toEqual(state.values);
  pair.gate.open(`${name}-3`);
  await until(() => [...seen, later].every(isOver), "the end");
  gone.abort();
  expect(here.map(({ method }) => method)).toEqual(there.map(({ method }) => method));
  for (const event of there.filter(({ event_id: id }) => here.some((other) => other.event_id === id)))
    expect(here).toContainEqual(event);
  expect(valuesIn(here).at(-1)).toEqual([1, 2, 3].map((step) => `${name}-${step}`));
  for (const events of [...seen, later]) {
    const numbers = events.map(({ seq }) => seq);
    expect(numbers).toEqual([...new Set(numbers)].toSorted((a, b) => a - b));
    const times = events.map(({ params }) => params.timestamp);
    expect(times).toEqual(times.toSorted((a, b) => a - b));
  }
});

test("of a run that is over by then only the end is told", async () => {
  const { name, threadId, runId } = await begun();
  for (const step of [1, 2, 3]) pair.gate.open(`${name}-${step}`);
  await pair.here.client.runs.join(threadId, runId);
  const gone = new AbortController();
  const events = await watch({ url: pair.there.url, fetch }, threadId, gone.signal);
  await until(() => isOver(events), "the end");
  gone.abort();
  expect(events.map(({ method }) => method)).toEqual(["values", "lifecycle"]);
});

test("a run that tells no values to legacy clients tells nothing before its end", async () => {
  const { name, threadId } = await begun({ streamMode: "updates" });
  const gone = new AbortController();
  const events = await watch({ url: pair.there.url, fetch }, threadId, gone.signal);
  pair.gate.open(`${name}-1`);
  await pair.gate.waitFor(`${name}-2`);
  expect(events).toEqual([]);
  for (const step of [2, 3]) pair.gate.open(`${name}-${step}`);
  await until(() => isOver(events), "the end");
  gone.abort();
  expect(events.map(({ method }) => method)).toEqual(["values", "lifecycle"]);
});

test("its end is not older than what was told before it, although the database's clock is behind", async () => {
  const { name, threadId, runId } = await begun();
  const [first, second] = [new AbortController(), new AbortController()];
  const events = await watch({ url: pair.there.url, fetch }, threadId, first.signal);
  for (const step of [1, 2]) pair.gate.open(`${name}-${step}`);
  await until(() => valuesIn(events).length > 0, "values");
  const next = newName();
  await pair.here.client.runs.create(threadId, "climbs", {
    input: { name: next, gate: pair.gate.url },
    multitaskStrategy: "enqueue",
  });
  first.abort();
  pair.gate.open(`${name}-3`);
  await pair.gate.waitFor(`${next}-1`);
  await pair.scratch.database.query(
    "update holdfast.runs set ended_at = ended_at - interval '2 min' where run_id = $1",
    [runId],
  );
  const rest = await watch({ url: pair.there.url, fetch }, threadId, second.signal, {
    since: events[0]?.seq,
  });
  await until(() => rest.length > 0, "the end");
  second.abort();
  for (const step of [1, 2, 3]) pair.gate.open(`${next}-${step}`);
  expect(rest[0]).toMatchObject({ method: "lifecycle", params: { data: { event: "completed" } } });
  expect(rest[0]?.params.timestamp).toBeGreaterThanOrEqual(events[0]?.params.timestamp ?? Infinity);
});

test("a page that is opened in its midst goes along with it", async () => {
  const { name, threadId } = await begun();
  const client = new Client({ apiUrl: pair.there.url, apiKey: null });
  const page: StreamController = new StreamController({
    assistantId: "climbs",
    client: client as never,
    threadId,
  });
  await page.hydrate(threadId);
  const log = (): unknown => Object(page.rootStore.getSnapshot().values).log;
  expect(page.rootStore.getSnapshot().isLoading).toBe(true);
  pair.gate.open(`${name}-1`);
  await until(() => String(log()) === `${name}-1`, "the first superstep");
  expect(page.rootStore.getSnapshot().isLoading).toBe(true);
  for (const step of [2, 3]) pair.gate.open(`${name}-${step}`);
  await until(() => !page.rootStore.getSnapshot().isLoading, "the end");
  expect(log()).toEqual([1, 2, 3].map((step) => `${name}-${step}`));
  await page.dispose();
});

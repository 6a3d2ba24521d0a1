// Watching runs: waiting, joining, coming back, leaving; on another server, after the end, after a restart.
import { randomUUID } from "node:crypto";
import type { Run } from "@langchain/langgraph-sdk";
import { describe, expect, test } from "vitest";
import { GRAPHS, logOf, newName, newThread, post, reaches, statusOf, usePair } from "../fixtures/pair.ts";
import { collect, startTestServer } from "../support/server.ts";
import type { Frame, TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const pair = usePair();

const inputOf = (name: string): { name: string; gate: string } => ({ name, gate: pair.gate.url });
const whole = (name: string): string[] => ["begin", "work", "finish"].map((node) => `${name}:${node}`);
const pathOf = ({ thread_id: thread, run_id: run }: Run): string => `/threads/${thread}/runs/${run}`;
const get = (server: TestServer, path: string, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(server.url + path, { headers });
const idsOf = (text: string): string[] => [...text.matchAll(/^id: (.*)$/gm)].map(([, id]) => id ?? "");

async function start(server: TestServer, threadId: string, name: string, options = {}): Promise<Run> {
  const run = await server.client.runs.create(threadId, "slow", { input: inputOf(name), ...options });
  await pair.gate.waitFor(name);
  return run;
}

/** A run that has ended, with six events: metadata, four values, and one for the input. */
async function ended(server: TestServer): Promise<Run> {
  const threadId = await newThread(server);
  const name = newName();
  pair.gate.open(name);
  await server.client.runs.wait(threadId, "slow", { input: inputOf(name) });
  const [run] = (await server.client.runs.list(threadId)) as [Run];
  return run;
}

test("join answers the values of a live run when it ends, on both servers", async () => {
  const threadId = await newThread(pair.here);
  const name = newName();
  const run = await start(pair.here, threadId, name);
  const joined = [pair.here, pair.there].map(({ client }) => client.runs.join(threadId, run.run_id));
  pair.gate.open(name);
  for (const values of await Promise.all(joined)) expect(values).toMatchObject({ log: whole(name) });
  expect(await pair.there.client.runs.join(threadId, run.run_id)).toMatchObject({ log: whole(name) });
});

test("join of a failed run resolves, and the run says error; join of a deleted run is not found", async () => {
  const threadId = await newThread(pair.here);
  const name = newName();
  const run = await start(pair.here, threadId, name);
  const joining = pair.there.client.runs.join(threadId, run.run_id);
  pair.gate.refuse(name);
  expect(await joining).toBeTypeOf("object");
  expect(await pair.there.client.runs.join(threadId, run.run_id)).toBeTypeOf("object");
  expect(await statusOf(pair.there, threadId, run.run_id)).toBe("error");
  await pair.there.client.runs.delete(threadId, run.run_id);
  for (const path of ["join", "stream"]) {
    const answer = await get(pair.here, `${pathOf(run)}/${path}`);
    expect([path, answer.status, await answer.text()]).toEqual([path, 404, "Run not found"]);
  }
});

test("those who watch a run that is rolled back come to a clean end", async () => {
  const threadId = await newThread(pair.here);
  const run = await start(pair.here, threadId, newName());
  const seen: string[] = [];
  const follow = async (client: TestServer["client"]): Promise<void> => {
    for await (const { event } of client.runs.joinStream(threadId, run.run_id)) seen.push(event);
  };
  const watching: Promise<unknown>[] = [pair.here, pair.there].flatMap(({ client }) => [
    follow(client),
    client.runs.join(threadId, run.run_id),
  ]);
  await until(() => seen.filter((event) => event === "metadata").length === 2, "both to see it");
  await pair.there.client.runs.cancel(threadId, run.run_id, false, "rollback");
  const settled = await Promise.allSettled(watching);
  expect(settled.map(({ status }) => status)).toEqual(watching.map(() => "fulfilled"));
});

describe.each(["the server that ran it", "another server"])("the stream of a run on %s", (where) => {
  const asked = (): TestServer => (where === "another server" ? pair.there : pair.here);

  test("replays from any event, from the first with -1 or without a number, and ends at once beyond the end", async () => {
    const run = await ended(pair.here);
    const streamed = async (lastEventId?: string): Promise<string[]> => {
      const headers = lastEventId === undefined ? {} : { "last-event-id": lastEventId };
      const answer = await get(asked(), `${pathOf(run)}/stream`, headers);
      expect(answer.status).toBe(200);
      return idsOf((await answer.text()).replaceAll(": heartbeat\n", ""));
    };
    const all = await streamed();
    expect(all).toEqual(all.map((_, index) => String(index)));
    expect(all.length).toBeGreaterThan(4);
    expect(await streamed("-1")).toEqual(all);
    expect(await streamed("")).toEqual(all);
    for (const last of all) expect(await streamed(last)).toEqual(all.slice(Number(last) + 1));
    expect(await streamed("5000")).toEqual([]);
  });

  test("says where it goes on, and refuses a number that is none", async () => {
    const run = await ended(pair.here);
    const answer = await get(asked(), `${pathOf(run)}/stream`);
    expect(answer.headers.get("location")).toBe(`${pathOf(run)}/stream`);
    expect(answer.headers.get("access-control-expose-headers")).toMatch(/\bLocation\b/);
    await answer.text();
    for (const wrong of ["x", "1.5", "-2", "1e3", "99999999999999999999"]) {
      const refused = await get(asked(), `${pathOf(run)}/stream`, { "last-event-id": wrong });
      expect([wrong, refused.status, await refused.text()]).toEqual([
        wrong,
        400,
        "Last-Event-ID must be the number of an event, or -1 for all of them.",
      ]);
    }
  });

  test("gives all who join the same frames, whenever they come", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const run = await start(pair.here, threadId, name, { streamMode: ["values", "updates"] });
    const early = [1, 2, 3].map(() => collect(asked().client.runs.joinStream(threadId, run.run_id)));
    const from2 = collect(asked().client.runs.joinStream(threadId, run.run_id, { lastEventId: "2" }));
    pair.gate.open(name);
    const [first, ...others] = await Promise.all(early);
    const late = await collect(asked().client.runs.joinStream(threadId, run.run_id));
    for (const frames of [...others, late]) expect(frames).toEqual(first);
    expect(await from2).toEqual(first?.slice(3));
    expect(first?.map(({ id }) => id)).toEqual(first?.map((_, index) => String(index)));
    expect(first?.at(-1)).toMatchObject({ data: { log: whole(name) } });
  });

  test.each([100, 1000])(
    "tells the states of a conversation of %i entries, live and later, and keeps them in the room of one",
    async (entries) => {
      const { thread_id: threadId } = await pair.here.client.threads.create({ graphId: "slow" });
      const past = Array.from({ length: entries }, () => `${randomUUID()} ${"said before ".repeat(15)}`);
      await pair.here.client.threads.updateState(threadId, { values: { log: past }, asNode: "__start__" });
      const name = newName();
      const run = await start(pair.here, threadId, name, { streamMode: ["values", "debug"] });
      const live = collect(asked().client.runs.joinStream(threadId, run.run_id));
      pair.gate.open(name);
      const frames = await live;
      const states = frames.filter(({ event }) => event === "values");
      expect(states.at(-1)).toMatchObject({ data: { log: [...past, ...whole(name)] } });
      for (const [index, { id }] of states.entries()) {
        const later = collect(
          asked().client.runs.joinStream(threadId, run.run_id, { lastEventId: String(id) }),
        );
        expect([index, await later]).toEqual([index, frames.slice(Number(id) + 1)]);
      }
      const [kept] = await pair.scratch.database.query<{ bytes: number }>(
        "select sum(length(body))::int as bytes from holdfast.run_events where run_id = $1",
        [run.run_id],
      );
      expect(states.length).toBeGreaterThan(3);
      expect(kept?.bytes).toBeLessThan(1.5 * JSON.stringify(states[0]?.data).length);
    },
  );
});

test("a queued run's stream answers with headers at once and begins when the run does", async () => {
  const threadId = await newThread(pair.here);
  const [live, next] = [newName(), newName()];
  await start(pair.there, threadId, live);
  const body = { assistant_id: "slow", input: inputOf(next), multitask_strategy: "enqueue" };
  const answer = await post(pair.here, `/threads/${threadId}/runs/stream`, body);
  expect([answer.status, answer.headers.get("content-type")]).toEqual([200, "text/event-stream"]);
  expect(pair.gate.came).not.toContain(next);
  for (const name of [live, next]) pair.gate.open(name);
  const text = await answer.text();
  expect(idsOf(text)[0]).toBe("0");
  expect(text).toContain(`"${next}:finish"`);
});

test("a server that restarts replays the runs of its former life in full", async () => {
  const first = await startTestServer(pair.scratch.url, GRAPHS);
  const threadId = await newThread(first);
  const frames = await collect(
    first.client.runs.stream(threadId, "echo", {
      input: { messages: [{ role: "user", content: "hello" }] },
      streamMode: ["messages-tuple", "values"],
    }),
  );
  const [run] = await first.client.runs.list(threadId);
  await first.stop();
  const second = await startTestServer(pair.scratch.url, GRAPHS);
  try {
    expect(await collect(second.client.runs.joinStream(threadId, run?.run_id ?? ""))).toEqual(frames);
  } finally {
    await second.stop();
  }
});

async function streaming(
  server: TestServer,
  threadId: string,
  options: object,
): Promise<{ leave: AbortController; next: () => Promise<unknown> }> {
  const leave = new AbortController();
  const frames = server.client.runs.stream(threadId, "slow", { signal: leave.signal, ...options });
  await frames.next();
  return { leave, next: () => frames.next().catch(() => "closed") };
}

describe("leaving", () => {
  test("cancels the run at once when asked, so that the next message is taken", async () => {
    const threadId = await newThread(pair.here);
    const [name, next] = [newName(), newName()];
    const { leave } = await streaming(pair.here, threadId, {
      input: inputOf(name),
      onDisconnect: "cancel",
    });
    await pair.gate.waitFor(name);
    leave.abort();
    await until(() => pair.gate.left.includes(name), "the graph to stop", 1000);
    pair.gate.open(next);
    await until(
      async () => (await pair.there.client.threads.get(threadId)).status === "idle",
      "the thread to be free",
      1000,
    );
    expect(
      await pair.there.client.runs.wait(threadId, "slow", { input: inputOf(next) }), //
    ).toMatchObject({ log: [`${name}:begin`, ...whole(next)] });
  });

  test("leaves the run alone when not asked", async () => {
    const threadId = await newThread(pair.here);
    const name = newName();
    const { leave, next } = await streaming(pair.here, threadId, { input: inputOf(name) });
    await pair.gate.waitFor(name);
    leave.abort();
    await next();
    const [run] = await pair.here.client.runs.list(threadId);
    pair.gate.open(name);
    await reaches(pair.here, run as Run, "success");
    expect(await logOf(pair.here, threadId)).toEqual(whole(name));
  });

  test("a joined stream cancels a run on another server, when asked", async () => {
    const threadId = await newThread(pair.here);
    const run = await start(pair.there, threadId, newName());
    const leave = new AbortController();
    const options = { signal: leave.signal, cancelOnDisconnect: true };
    const joined = pair.here.client.runs.joinStream(threadId, run.run_id, options);
    expect(await joined.next()).toMatchObject({ value: { event: "metadata" } });
    leave.abort();
    await reaches(pair.here, run, "interrupted");
  });

  test("a server that stops cuts the stream, and the run goes on elsewhere instead of being cancelled", async () => {
    const stopping = await startTestServer(pair.scratch.url, GRAPHS);
    const threadId = await newThread(stopping);
    const name = newName();
    const body = { assistant_id: "slow", input: inputOf(name), on_disconnect: "cancel" };
    const answer = await post(stopping, `/threads/${threadId}/runs/stream`, body);
    const reading = answer.text().then(
      () => "ended cleanly",
      () => "cut",
    );
    await pair.gate.waitFor(name);
    await stopping.stop();
    expect(await reading).toBe("cut");
    pair.gate.open(name);
    const [run] = await pair.here.client.runs.list(threadId);
    await reaches(pair.here, run as Run, "success");
    expect(await logOf(pair.here, threadId)).toEqual(whole(name));
  });
});

// The client's type says complete|continue, servers mean delete|keep.
const keep = "keep" as "complete" | "continue";
const isHidden = async (threadId: string): Promise<boolean> =>
  (await get(pair.there, `/threads/${threadId}`)).status === 404;

describe("a run without a thread", () => {
  test("by wait, stream and create: its thread is hidden when it is over, the run and its stream still answer", async () => {
    const names = Array.from({ length: 3 }, newName);
    for (const name of names) pair.gate.open(name);
    const [a, b, c] = names.map(inputOf);
    expect(await pair.here.client.runs.wait(null, "slow", { input: a ?? {} })).toMatchObject({
      log: whole(a?.name ?? ""),
    });
    const made: { run_id: string; thread_id?: string }[] = [];
    const streamed = await collect(
      pair.here.client.runs.stream(null, "slow", {
        input: b ?? {},
        onRunCreated: (run) => made.push(run),
      }),
    );
    expect(streamed.map(({ id }) => id)).toEqual(streamed.map((_, index) => String(index)));
    const created = await pair.here.client.runs.create(null, "slow", { input: c ?? {} });
    const frames: Frame[][] = [];
    for (const runId of [made[0]?.run_id ?? "", created.run_id]) {
      frames.push(await collect(pair.there.client.runs.joinStream(null, runId)));
      const run = (await (await get(pair.there, `/runs/${runId}`)).json()) as Run;
      expect(run).toMatchObject({ run_id: runId, status: "success" });
      expect(await isHidden(run.thread_id)).toBe(true);
      expect(await collect(pair.here.client.runs.joinStream(run.thread_id, runId))).toEqual(frames.at(-1));
    }
    expect(frames[0]).toEqual(streamed);
  });

  test("its answer names the run, and where its stream goes on", async () => {
    const answer = await post(pair.here, "/runs/stream", { assistant_id: "silent", input: {} });
    await answer.text();
    const [location = "", runId = ""] =
      /^\/threads\/[^/]+\/runs\/([^/]+)\/stream$/.exec(answer.headers.get("location") ?? "") ?? [];
    expect(answer.headers.get("content-location")).toBe(`/runs/${runId}`);
    const again = await get(pair.there, location);
    expect(idsOf(await again.text())[0]).toBe("0");
  });

  test("keeps its thread when asked, and shows it while it runs", async () => {
    const name = newName();
    const run = await pair.here.client.runs.create(null, "slow", { input: inputOf(name) });
    await pair.gate.waitFor(name);
    expect(await isHidden(run.thread_id)).toBe(false);
    const kept = await pair.here.client.runs.create(null, "silent", { input: {}, onCompletion: keep });
    await collect(pair.here.client.runs.joinStream(null, kept.run_id));
    expect((await pair.there.client.threads.get(kept.thread_id)).status).toBe("idle");
    pair.gate.open(name);
    await reaches(pair.here, run, "success");
    expect(await isHidden(run.thread_id)).toBe(true);
  });

  test("many come in one batch, in the official client's spelling", async () => {
    const names = Array.from({ length: 3 }, newName);
    for (const name of names) pair.gate.open(name);
    const runs = await pair.here.client.runs.createBatch(
      names.map((name) => ({
        assistantId: "slow",
        input: inputOf(name),
        streamMode: "updates" as const,
        metadata: { of: name },
        onCompletion: keep,
      })),
    );
    expect(runs.map(({ metadata }) => metadata)).toMatchObject(names.map((name) => ({ of: name })));
    for (const [index, run] of runs.entries()) {
      const frames = await collect(pair.there.client.runs.joinStream(run.thread_id, run.run_id));
      expect(new Set(frames.map(({ event }) => event))).toEqual(new Set(["metadata", "updates"]));
      expect(await logOf(pair.here, run.thread_id)).toEqual(whole(names[index] ?? ""));
    }
  });

  test("of a batch that is refused nothing is accepted", async () => {
    const of = newName();
    const refused = await post(pair.here, "/runs/batch", [
      { assistant_id: "silent", metadata: { of } },
      { assistant_id: randomUUID() },
    ]);
    expect(refused.status).toBe(404);
    const accepted = "select from holdfast.runs where metadata ->> 'of' = $1";
    expect(await pair.scratch.database.query(accepted, [of])).toEqual([]);
  });
});

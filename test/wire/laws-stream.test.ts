// Laws of the wire: what a run's stream holds.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import type { Gate } from "../fixtures/gate.ts";
import { SDKS } from "../support/clients.ts";
import type { OfficialClient } from "../support/clients.ts";
import { eachCluster } from "../support/cluster.ts";
import { collect } from "../support/server.ts";
import type { Frame } from "../support/server.ts";
import { until } from "../support/until.ts";

let gate: Gate;
beforeAll(async () => {
  gate = await startGate();
});
afterAll(() => gate.stop());

const question = { messages: [{ role: "user", content: "hello" }] };
const ALL_MODES = ["values", "updates", "messages-tuple", "custom"] as const;
const asking = (input: Record<string, unknown>) => ({ input, streamMode: [...ALL_MODES] });
const failure = { error: "RangeError", message: "the node failed on purpose" };

/** The input of a run that waits at the gate under a name of its own. */
const gated = (): { name: string; gate: string } => ({ name: randomUUID(), gate: gate.url });

const idsOf = (frames: readonly Frame[]): (string | undefined)[] => frames.map(({ id }) => id);
const dense = (frames: readonly Frame[]): string[] => frames.map((_, index) => String(index));
const eventsOf = (frames: readonly Frame[]): string[] => [...new Set(frames.map(({ event }) => event))];
const isMeta = ({ event }: Frame): boolean => event === "metadata";
/** What came, whatever the tasks were called. */
const unnamed = (frames: readonly Frame[]): unknown[] =>
  frames.map(({ event, id }) => [event.replaceAll(/:[\da-f-]{36}/g, ""), id]);
const runOf = (frames: readonly Frame[]): string => String(Object(frames[0]?.data).run_id);

const TERMINAL = ["success", "error", "interrupted", "timeout"];

/** A mode, the graph that uses it, and the events that are its own. */
const MODES: [string, string, string[]][] = [
  ["values", "echo", ["values"]],
  ["updates", "echo", ["updates"]],
  ["messages-tuple", "echo", ["messages"]],
  ["messages", "echo", ["messages/complete", "messages/metadata", "messages/partial"]],
  ["custom", "echo", ["custom"]],
  ["events", "echo", ["events"]],
  ["tasks", "echo", ["tasks"]],
  ["checkpoints", "echo", ["checkpoints"]],
  ["debug", "echo", ["debug"]],
  ["tools", "tooled", ["tools"]],
];

eachCluster({ HOLDFAST_CONFIG: "test/fixtures/laws.langgraph.json" }, (cluster) => {
  /** Streams of every kind of run, by their kind. */
  async function streamEveryKind({ runs }: OfficialClient): Promise<Map<string, Frame[]>> {
    const [threaded = "", busy = "", asked = "", failed = ""] = await Promise.all(
      Array.from({ length: 4 }, () => cluster.newThread()),
    );
    const [first, second] = [gated(), gated()];
    const before = collect(runs.stream(busy, "slow", asking(first)));
    await gate.waitFor(first.name);
    const enqueued = collect(runs.stream(busy, "slow", { ...asking(second), multitaskStrategy: "enqueue" }));
    for (const { name } of [first, second]) gate.open(name);
    return new Map([
      ["threaded", await collect(runs.stream(threaded, "echo", asking(question)))],
      ["stateless", await collect(runs.stream(null, "echo", asking(question)))],
      ["before", await before],
      ["enqueued", await enqueued],
      ["interrupted", await collect(runs.stream(asked, "asking", asking({ count: 1 })))],
      ["resumed", await collect(runs.stream(asked, "asking", { command: { resume: "yes" } }))],
      ["failing", await collect(runs.stream(failed, "failing", asking({ count: 1 })))],
    ]);
  }

  describe.each(SDKS)("SDK $sdk", (sdk) => {
    test("ids are 0,1,2… without a gap for every kind of run", async () => {
      for (const [kind, frames] of await streamEveryKind(cluster.connect(sdk))) {
        expect([kind, ...idsOf(frames)]).toEqual([kind, ...dense(frames)]);
        expect(frames.length).toBeGreaterThan(1);
      }
    });
  });

  test("the first frame is metadata and no frame is called end", async () => {
    for (const [kind, frames] of await streamEveryKind(cluster.client)) {
      const runId = runOf(frames);
      expect(runId).toMatch(/^[\da-f-]{36}$/);
      expect([kind, frames[0]]).toEqual([
        kind,
        { id: "0", event: "metadata", data: { run_id: runId, attempt: 1 } },
      ]);
      expect(eventsOf(frames.slice(1))).not.toContain("metadata");
      expect(eventsOf(frames)).not.toContain("end");
      // The stream is over once the run is, on whatever instance one looks.
      const run = (await (await cluster.ask(`/runs/${runId}`)).json()) as { status: string };
      expect(TERMINAL).toContain(run.status);
    }
  });

  test("each stream mode yields exactly its own events", async () => {
    const seen = await Promise.all(
      MODES.map(async ([mode, graph]) => {
        // The client's type leaves out modes that its server takes.
        const options = { input: question, streamMode: [mode] as ["values"] };
        const frames = await collect(cluster.client.runs.stream(await cluster.newThread(), graph, options));
        return [mode, graph, eventsOf(frames.slice(1)).toSorted()];
      }),
    );
    expect(seen).toEqual(MODES);
    // `useStream` names no mode while its component reads nothing of the stream.
    for (const none of [{}, { streamMode: [] }]) {
      const asked = { input: question, ...none };
      const byDefault = cluster.client.runs.stream(await cluster.newThread(), "echo", asked);
      expect(eventsOf(await collect(byDefault))).toEqual(["metadata", "values"]);
    }
  });

  test("subgraph frames carry their namespace", async () => {
    const options = { input: {}, streamMode: ["updates" as const], streamSubgraphs: true };
    const frames = await collect(cluster.client.runs.stream(await cluster.newThread(), "deep", options));
    const uuid = "[\\da-f]{8}-[\\da-f-]{27}";
    const inMiddle = new RegExp(`^updates\\|upper:${uuid}$`);
    const inInnermost = new RegExp(`^updates\\|upper:${uuid}\\|lower:${uuid}$`);
    expect(frames.slice(1).map(({ event, data }) => [event, data])).toEqual([
      [expect.stringMatching(inMiddle), { sink: {} }],
      [expect.stringMatching(inInnermost), { bottom: { depth: "bottom" } }],
      [expect.stringMatching(inInnermost), { rise: {} }],
      [expect.stringMatching(inMiddle), { lower: { depth: "bottom" } }],
      ["updates", { upper: { depth: "bottom" } }],
    ]);
    expect(new Set(frames.slice(2, 4).map(({ event }) => event)).size).toBe(1);
    const plain = { input: {}, streamMode: ["updates" as const] };
    const above = await collect(cluster.client.runs.stream(await cluster.newThread(), "deep", plain));
    expect(above.slice(1)).toEqual([{ id: "1", event: "updates", data: frames.at(-1)?.data }]);
  });

  test("a stream of namespaces holds their events and those of graphs inside, without subagents", async () => {
    const { runs } = cluster.client;
    const threadId = await cluster.newThread();
    const options = { input: {}, streamMode: ["updates" as const, "values" as const], streamSubgraphs: true };
    const frames = await collect(runs.stream(threadId, "delegating", options));
    const ours = frames.filter(({ event }) => !event.includes("tools:"));
    const agents = [...new Set(frames.flatMap(({ event }) => event.match(/\|(tools:[^|]+)/)?.[1] ?? []))];
    expect([ours.length < frames.length, agents.length]).toEqual([true, 1]);
    expect(ours.map(({ event }) => event)).toContainEqual(expect.stringMatching(/^updates\|inner:/));
    const joined = (streamNamespaces: string[]): Promise<Frame[]> =>
      collect(runs.joinStream(threadId, runOf(frames), { lastEventId: "-1", streamNamespaces }));
    expect(await joined([""])).toEqual(ours);
    const theirs = frames.filter((frame) => isMeta(frame) || frame.event.includes("|tools:"));
    expect(await joined(agents)).toEqual(theirs);
    expect(await joined(["", ...agents])).toEqual(frames);
    expect(await joined(["nowhere:1"])).toEqual(frames.filter(isMeta));
    const again = await cluster.newThread();
    const live = await collect(runs.stream(again, "delegating", { ...options, streamNamespaces: [""] }));
    expect(unnamed(live)).toEqual(unnamed(ours));
  });

  test("a stream behind a checkpoint of the run holds what came after it, behind any other the whole run", async () => {
    const { runs, threads } = cluster.client;
    const threadId = await cluster.newThread();
    const earlier = await collect(runs.stream(threadId, "deep", { input: {} }));
    const options = { input: { depth: "again" }, streamMode: ["updates" as const, "values" as const] };
    const frames = await collect(runs.stream(threadId, "deep", options));
    const behind = (
      checkpointId: string,
      more: { runId?: string; lastEventId?: string } = {},
    ): Promise<Frame[]> =>
      collect(
        runs.joinStream(threadId, more.runId ?? runOf(frames), {
          lastEventId: more.lastEventId ?? "-1",
          checkpointId,
        }),
      );
    const history = await threads.getHistory(threadId, { limit: 100 });
    const own = history.filter(({ metadata }) => metadata?.["run_id"] === runOf(frames));
    const steps = own.map(({ metadata }) => Number(metadata?.["step"]));
    expect(steps.length).toBeGreaterThan(2);
    // Its first two supersteps take the input in: no node of the graph has told of them.
    const begun = Math.min(...steps) + 1;
    for (const { checkpoint, values, metadata } of own) {
      const shown = await behind(checkpoint.checkpoint_id ?? "");
      expect(frames.slice(-shown.length)).toEqual(shown);
      // The checkpoint that took the input in is before all that is told.
      const isFirst = metadata?.["source"] === "input";
      expect(shown[0]).toMatchObject(isFirst ? { event: "metadata" } : { event: "values", data: values });
      const later = steps.filter((step) => step > Math.max(begun, Number(metadata?.["step"])));
      expect(shown.filter(({ event }) => event === "updates")).toHaveLength(later.length);
    }
    const head = own[0]?.checkpoint.checkpoint_id ?? "";
    expect(await behind(head)).toHaveLength(1);
    expect(await behind(head, { lastEventId: "1" })).toEqual(frames.slice(2));
    const before = history.find(({ metadata }) => metadata?.["run_id"] === runOf(earlier));
    for (const other of [before?.checkpoint.checkpoint_id ?? "", randomUUID(), "none", ""])
      expect(await behind(other)).toEqual(frames);
    expect(await behind(head, { runId: runOf(earlier) })).toEqual(earlier);
  });

  test("a checkpoint whose superstep changed nothing stands behind the values before it", async () => {
    const { runs, threads } = cluster.client;
    const threadId = await cluster.newThread();
    const options = { input: { count: 3 }, streamMode: ["updates" as const, "values" as const] };
    const frames = await collect(runs.stream(threadId, "unchanging", options));
    expect(eventsOf(frames)).toEqual(["metadata", "values", "updates"]);
    const [head] = await threads.getHistory(threadId);
    const join = { lastEventId: "-1", checkpointId: head?.checkpoint.checkpoint_id ?? "" };
    expect(await collect(runs.joinStream(threadId, runOf(frames), join))).toEqual(frames.slice(1));
    expect(await collect(runs.joinStream(null, runOf(frames), join))).toEqual(frames.slice(1));
  });

  test("an interrupt shows as __interrupt__ in values and updates", async () => {
    const threadId = await cluster.newThread();
    const options = { input: { count: 1 }, streamMode: ["updates" as const, "values" as const] };
    const frames = await collect(cluster.client.runs.stream(threadId, "asking", options));
    const { interrupts, status } = await cluster.client.threads.get(threadId);
    const asked = { __interrupt__: Object.values(interrupts).flat() };
    expect(asked).toEqual({ __interrupt__: [{ id: expect.any(String), value: { question: "go on?" } }] });
    expect(status).toBe("interrupted");
    expect(frames.slice(1)).toEqual([
      { id: "1", event: "values", data: { count: 1 } },
      { id: "2", event: "updates", data: asked },
      { id: "3", event: "values", data: asked },
    ]);
    const stopped = await cluster.newThread();
    const breakpoint = { input: question, interruptBefore: ["answer"], streamMode: ["values" as const] };
    const last = (await collect(cluster.client.runs.stream(stopped, "echo", breakpoint))).at(-1);
    expect(last).toMatchObject({ event: "values", data: { __interrupt__: [] } });
  });

  describe.each(SDKS)("SDK $sdk", (sdk) => {
    test("a failing node ends the stream with its class and message", async () => {
      const { runs } = cluster.connect(sdk);
      const threadId = await cluster.newThread();
      for (const stream of [
        runs.stream(threadId, "failing", asking({ count: 1 })),
        runs.stream(null, "failing", asking({ count: 1 })),
      ]) {
        const frames = await collect(stream);
        expect(frames.at(-1)).toEqual({ id: String(frames.length - 1), event: "error", data: failure });
        expect(frames.filter(({ event }) => event === "error")).toHaveLength(1);
      }
      const thrown = `${failure.error}: ${failure.message}`;
      await expect(runs.wait(threadId, "failing", { input: { count: 1 } })).rejects.toThrow(thrown);
    });
  });

  test("a cancelled run ends without an error frame", async () => {
    const { runs, threads } = cluster.client;
    const threadId = await cluster.newThread();
    const input = gated();
    const streaming = collect(runs.stream(threadId, "slow", asking(input)));
    await gate.waitFor(input.name);
    const [run] = await runs.list(threadId);
    await runs.cancel(threadId, run?.run_id ?? "");
    const frames = await streaming;
    expect(eventsOf(frames)).toEqual(["metadata", "values", "updates"]);
    expect(frames.at(-1)?.data).not.toHaveProperty("__interrupt__");
    expect((await runs.get(threadId, run?.run_id ?? "")).status).toBe("interrupted");
    expect((await threads.get(threadId)).status).toBe("idle");
  });

  test("two joiners see the same frames", async () => {
    const { runs } = cluster.client;
    const threadId = await cluster.newThread();
    const input = gated();
    const starter = collect(runs.stream(threadId, "slow", asking(input)));
    await gate.waitFor(input.name);
    const [run] = await runs.list(threadId);
    const seen: Frame[][] = [[], []];
    const joining = seen.map(async (frames) => {
      for await (const frame of runs.joinStream(threadId, run?.run_id ?? "")) frames.push(frame);
    });
    await until(() => seen.every((frames) => frames.length > 2), "both to see a run that is live");
    gate.open(input.name);
    await Promise.all(joining);
    const [one, two] = seen;
    expect(one).toEqual(await starter);
    expect(two).toEqual(one);
  });

  test("joining a finished run replays all of it", async () => {
    const { runs } = cluster.client;
    const threadId = await cluster.newThread();
    const frames = await collect(runs.stream(threadId, "echo", asking(question)));
    const join = (options: object): Promise<Frame[]> =>
      collect(runs.joinStream(threadId, runOf(frames), options));
    for (const options of [{}, { lastEventId: "-1" }]) expect(await join(options)).toEqual(frames);
    expect(await join({ lastEventId: "3" })).toEqual(frames.slice(4));
  });

  test("joining with a stream mode filters and keeps the ids", async () => {
    const { runs } = cluster.client;
    const threadId = await cluster.newThread();
    const frames = await collect(runs.stream(threadId, "echo", asking(question)));
    for (const [mode, event] of [
      ["updates", "updates"],
      ["custom", "custom"],
      ["messages-tuple", "messages"],
    ] as const) {
      const only = await collect(runs.joinStream(threadId, runOf(frames), { streamMode: mode }));
      expect(only).toEqual(frames.filter((frame) => frame.event === "metadata" || frame.event === event));
      expect(only.length).toBeGreaterThan(1);
    }
  });
});

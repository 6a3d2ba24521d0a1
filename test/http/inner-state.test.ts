// The state of a graph that stands in another one is its own: read, listed and edited with its channels and nodes.
import type { Checkpoint } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { found } from "../support/found.ts";
import { collect, useServer } from "../support/server.ts";

interface Drafted {
  question: string;
  draft?: string;
  answer?: string;
}

interface Debug {
  type: string;
  payload: {
    checkpoint: Record<string, unknown> | null;
    parent_checkpoint: Record<string, unknown> | null;
    tasks: unknown[];
  };
}

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/inner.langgraph.json" });

async function asking(): Promise<{ threadId: string; place: Checkpoint }> {
  const { threads, runs } = held.server.client;
  const { thread_id: threadId } = await threads.create();
  await runs.wait(threadId, "publishing", { input: { question: "Q" } });
  const { tasks } = await threads.getState(threadId);
  const place = found(tasks[0]?.checkpoint, "checkpoint of the graph in it");
  return { threadId, place };
}

test("it is read and listed with its own channels", async () => {
  const { threads } = held.server.client;
  const { threadId, place } = await asking();
  const { values, next, checkpoint } = await threads.getState<Drafted>(threadId, place);
  expect([values, next]).toEqual([{ question: "Q", answer: "", draft: "draft of Q" }, ["review"]]);
  const history = await threads.getHistory<Drafted>(threadId, { checkpoint: place });
  expect(history.map((state) => [state.next[0], state.values.draft])).toEqual([
    ["review", "draft of Q"],
    ["write", ""],
    ["__start__", undefined],
  ]);
  const exact = await threads.getState<Drafted>(threadId, checkpoint);
  expect(exact.values.draft).toBe("draft of Q");
});

test("an edit of it counts when its question is answered", async () => {
  const { threads, runs } = held.server.client;
  const { threadId, place } = await asking();
  await threads.updateState(threadId, { values: { draft: "EDITED" }, asNode: "write", checkpoint: place });
  expect((await threads.getState<Drafted>(threadId, place)).values.draft).toBe("EDITED");
  const ended = await runs.wait(threadId, "publishing", { command: { resume: true } });
  expect(ended).toEqual({ question: "Q", answer: "EDITED" });
});

test("an edit where no graph is known is refused, and writes nothing", async () => {
  const { threads } = held.server.client;
  const { threadId } = await asking();
  const nowhere = { checkpoint_ns: "nobody:1" } as Checkpoint;
  const edit = threads.updateState(threadId, {
    values: { answer: "x" },
    asNode: "write",
    checkpoint: nowhere,
  });
  await expect(edit).rejects.toThrow(/HTTP 400.*names no graph/);
  expect((await threads.getState<Drafted>(threadId)).values.answer).toBe("");
});

test("mode debug tells of checkpoints and of the graph in it as the state does", async () => {
  const { threads, runs } = held.server.client;
  const { thread_id: threadId } = await threads.create();
  const options = { input: { question: "Q" }, streamMode: "debug" as const };
  const frames = await collect(runs.stream(threadId, "publishing", options));
  const told = frames.flatMap(({ event, data }) => (event === "debug" ? [data as Debug] : []));
  const states = told.filter(({ type }) => type === "checkpoint").map(({ payload }) => payload);
  const places = (await threads.getHistory(threadId))
    .toReversed()
    .map((state) => [state.checkpoint.checkpoint_id, state.parent_checkpoint?.checkpoint_id]);
  expect(
    states.map((state) => [state.checkpoint?.["checkpoint_id"], state.parent_checkpoint?.["checkpoint_id"]]),
  ).toEqual(places);
  expect(states.at(-1)?.tasks[0]).toMatchObject({
    name: "author",
    checkpoint: { thread_id: threadId, checkpoint_ns: expect.stringMatching(/^author:/) },
  });
  expect(JSON.stringify(told)).not.toContain("parentConfig");
});

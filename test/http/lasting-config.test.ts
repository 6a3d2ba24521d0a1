// What runs of a thread were configured with holds for its later runs, and its metadata reach them.
import { randomUUID } from "node:crypto";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { TEST_KEYS } from "../support/keys.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";

const HOLDFAST_CONFIG = "test/fixtures/lasting.langgraph.json";
const SEALINGS: [string, Record<string, string>][] = [
  ["as it is", {}],
  ["sealed", { HOLDFAST_KEYS: TEST_KEYS }],
];

describe.each(SEALINGS)("in a database that is %s", (_, keys) => {
  let scratch: TestDatabase;
  let server: TestServer;
  beforeAll(async () => {
    scratch = await testDatabase(keys["HOLDFAST_KEYS"]);
    server = await startTestServer(scratch.url, { HOLDFAST_CONFIG, ...keys });
  });
  afterAll(async () => {
    await server.stop();
    await scratch.close();
  });

  async function told(threadId: string, configurable = {}, metadata = {}): Promise<unknown> {
    const options = { input: {}, config: { configurable }, metadata };
    return Reflect.get(await server.client.runs.wait(threadId, "telling", options), "told");
  }
  const newThread = async (metadata = {}): Promise<string> =>
    (await server.client.threads.create({ metadata })).thread_id;
  const configOf = async (threadId: string): Promise<unknown> =>
    Reflect.get(await server.client.threads.get(threadId), "config");

  test("a run has what an earlier one was configured with, unless it brings something else", async () => {
    const threadId = await newThread();
    expect(await configOf(threadId)).toEqual({});
    expect(await told(threadId, { tone: "loud", other: [1] })).toMatchObject({ tone: "loud" });
    expect(await told(threadId)).toMatchObject({ tone: "loud" });
    expect(await told(threadId, { tone: "low" })).toMatchObject({ tone: "low" });
    expect(await told(threadId)).toMatchObject({ tone: "low" });
    expect(await configOf(threadId)).toEqual({ configurable: { tone: "low", other: [1] } });
  });

  test("what an assistant is configured with holds for its own runs only, and less than what its thread has", async () => {
    const { client } = server;
    const assistant = await client.assistants.create({
      graphId: "telling",
      config: { configurable: { tone: "of its assistant" } },
    });
    const threadId = await newThread();
    const ask = async (): Promise<unknown> =>
      Reflect.get(await client.runs.wait(threadId, assistant.assistant_id, { input: {} }), "told");
    expect(await ask()).toMatchObject({ tone: "of its assistant" });
    expect(await told(threadId)).not.toHaveProperty("tone");
    await told(threadId, { tone: "of its thread" });
    expect(await ask()).toMatchObject({ tone: "of its thread" });
  });

  test("where a run began, and who it was for, is no configuration of the next one", async () => {
    const threadId = await newThread();
    await told(threadId, { tone: "loud" });
    const [state] = await server.client.threads.getHistory(threadId);
    await told(threadId, {
      ...state?.checkpoint,
      thread_id: threadId,
      __pregel_resuming: true,
      langgraph_auth_user_id: "root",
    });
    expect(await configOf(threadId)).toEqual({ configurable: { tone: "loud" } });
  });

  test("a thread is read with the graph that its last run was made with", async () => {
    const threadId = await newThread();
    const ran = async (configurable = {}): Promise<unknown> => {
      await server.client.runs.wait(threadId, "shaped", { input: {}, config: { configurable } });
      return past();
    };
    const past = async (): Promise<unknown> =>
      (await server.client.threads.getHistory(threadId, { limit: 1 }))[0]?.values;
    expect(await ran({ channel: "first" })).toEqual({ first: 1 });
    expect(await ran()).toEqual({ first: 1 });
    expect(await ran({ channel: "second" })).toEqual({ second: 1 });
    // Checkpoints of other servers of LangGraph say of their runs what they like.
    await scratch.database.query(
      'update public.checkpoints set metadata = metadata || \'{"run_id": "mine"}\' where thread_id = $1',
      [threadId],
    );
    expect(await past()).toEqual({});
  });

  test("a copy has the configuration of its source, and a life of its own", async () => {
    const threadId = await newThread();
    await told(threadId, { tone: "loud" });
    const { thread_id: copyId } = await server.client.threads.copy(threadId);
    expect(await told(copyId)).toMatchObject({ tone: "loud" });
    await told(copyId, { tone: "low" });
    expect([await told(threadId), await told(copyId)]).toMatchObject([{ tone: "loud" }, { tone: "low" }]);
  });

  test("a run that waits has it as well", async () => {
    const threadId = await newThread();
    await told(threadId, { tone: "loud" });
    const run = await server.client.runs.create(threadId, "telling", { input: {}, afterSeconds: 0.2 });
    expect(await server.client.runs.join(threadId, run.run_id)).toMatchObject({ told: { tone: "loud" } });
  });

  test("the metadata of a thread reach its runs, below those of the run", async () => {
    const threadId = await newThread({ team: "of its thread", only: "here" });
    expect(await told(threadId)).toMatchObject({ team: "of its thread" });
    expect(await told(threadId, {}, { team: "of its run" })).toMatchObject({ team: "of its run" });
    const last = (await server.client.runs.list(threadId)).at(-1);
    expect(last?.metadata).toMatchObject({ team: "of its run", only: "here", graph_id: "telling" });
    expect((await server.client.threads.get(threadId)).metadata).toMatchObject({ team: "of its thread" });
  });

  test("the metadata of a thread win over those of an assistant", async () => {
    const { client } = server;
    const metadata = { team: "of its assistant", kind: "of its assistant" };
    const assistant = await client.assistants.create({ graphId: "telling", metadata });
    const threadId = await newThread({ team: "of its thread" });
    const values = await client.runs.wait(threadId, assistant.assistant_id, { input: {} });
    expect(Reflect.get(values, "told")).toMatchObject({ team: "of its thread" });
    const [run] = await client.runs.list(threadId);
    expect(run?.metadata).toMatchObject({ team: "of its thread", kind: "of its assistant" });
  });

  test("a thread that is made for a run is found by the metadata of the run", async () => {
    const { client } = server;
    const threadId = randomUUID();
    const mine = randomUUID();
    const options = { input: {}, metadata: { mine } };
    await client.runs.wait(threadId, "telling", { ...options, ifNotExists: "create" });
    for (const onCompletion of ["keep", "delete"])
      await fetch(`${server.url}/runs/wait`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ assistant_id: "telling", on_completion: onCompletion, ...options }),
      });
    const found = await client.threads.search({ metadata: { mine } });
    expect(found.map(({ metadata }) => metadata?.["graph_id"])).toEqual(["telling", "telling"]);
    expect(found.map(({ thread_id: id }) => id)).toContain(threadId);
    await client.runs.wait(threadId, "telling", { input: {}, metadata: { mine: "another" } });
    expect((await client.threads.get(threadId)).metadata).toMatchObject({ mine });
  });

  test("of runs that are created at the same time each leaves what it brings", async () => {
    const threadId = await newThread();
    const names = ["one", "two", "three", "four", "five", "six"];
    await Promise.all(
      names.map((name) =>
        server.client.runs.create(threadId, "telling", {
          input: {},
          config: { configurable: { [name]: name } },
          multitaskStrategy: "enqueue",
        }),
      ),
    );
    const configurable = Object.fromEntries(names.map((name) => [name, name]));
    expect(await configOf(threadId)).toEqual({ configurable });
  });

  test("what is kept of it is sealed where all is sealed", async () => {
    const threadId = await newThread();
    await told(threadId, { tone: "loud" });
    const sql = "select config::text from holdfast.threads where thread_id = $1";
    const [row] = await scratch.database.query<{ config: string }>(sql, [threadId]);
    expect(row?.config.includes("loud")).toBe(Object.keys(keys).length === 0);
  });
});

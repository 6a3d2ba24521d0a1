// What passes through tools and is found: arguments, questions to people and results are kept as the graph's privacy says.
import { Client } from "@langchain/langgraph-sdk";
import { expect, test } from "vitest";
import { TEST_KEYS } from "../support/keys.ts";
import { useServer } from "../support/server.ts";
import { dumpOf } from "../support/taint.ts";
import { calling, questions, run } from "../support/tool-calls.ts";

const held = useServer({
  HOLDFAST_CONFIG: "test/fixtures/tools-private.langgraph.json",
  HOLDFAST_KEYS: TEST_KEYS,
});
const as = (user: string): Client =>
  new Client({
    apiUrl: held.server.url,
    callerOptions: { maxRetries: 0 },
    defaultHeaders: { authorization: `Bearer ${user}` },
  });
const mail = "ada.l@example.org";
const echoing = { name: "guarded", args: { text: `Write to ${mail}` } };
// Nobody listens there: whether it is paid does not matter here.
const paying = { name: "pay", args: { gate: "http://127.0.0.1:1", name: mail, amount: 20 } };

test.each(["toolbox", "redacting"])(
  "arguments, questions and results hold no address on the disk (%s)",
  async (graph) => {
    const { thread_id: threadId } = await as("bob").threads.create();
    await as("bob").runs.wait(threadId, graph, { input: calling(echoing, paying) });
    const told = await as("boss").runs.wait(threadId, graph, {
      command: { resume: { approved: true, args: { name: "eve@example.org" } } },
    });
    expect(JSON.stringify(told)).not.toContain("ada.l");
    for (const value of [mail, "eve@example.org"])
      expect(await dumpOf(held.scratch.database)).not.toContain(value);
  },
);

test("who gave an address is shown it in the question and in the result, and others its token", async () => {
  const { thread_id: threadId } = await as("bob").threads.create();
  await run(as("bob"), threadId, { input: calling(echoing, paying) });
  const [mine] = await questions(as("bob"), threadId);
  expect(mine?.value).toMatchObject({ tool: "pay", args: { name: mail } });
  const [others] = await questions(as("boss"), threadId);
  expect(JSON.stringify(others)).toMatch(/\[EMAIL:[a-z]{16}\]/);
  const [told] = await run(as("boss"), threadId, { command: { resume: false } });
  expect(told?.content).toMatch(/^Write to \[EMAIL:[a-z]{16}\]$/);
  const { values } = await as("bob").threads.getState(threadId);
  expect(JSON.stringify(values)).toContain(`Write to ${mail}`);
});

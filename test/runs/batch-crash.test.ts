// A server that dies around a batch of runs: none of them is there, or all are, and then all are executed.
import { Client } from "@langchain/langgraph-sdk";
import { expect, onTestFinished, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { until } from "../support/until.ts";

test.each([
  ["run.accepting", 0],
  ["run.accepted", 3],
])(
  "killed at %s of a batch of three, a server leaves %i runs",
  async (point, left) => {
    const scratch = await testDatabase();
    onTestFinished(() => scratch.close());
    const { database, url } = scratch;
    const args = ["serve", "--port", "0", "--config", "test/fixtures/langgraph.json"];
    const dying = startHoldfast(args, { DATABASE_URL: url, HOLDFAST_FAULT: `${point}:1` });
    await dying.says("Ready on");
    const client = new Client({
      apiUrl: /Ready on (\S+)/.exec(dying.out())?.[1] ?? "",
      callerOptions: { maxRetries: 0 },
    });
    const asked = Array.from({ length: 3 }, () => ({
      assistantId: "echo",
      input: { messages: [{ role: "user", content: "hello" }] },
      onCompletion: "keep" as never, // which the client's types do not know
    }));
    await expect(client.runs.createBatch(asked)).rejects.toThrow(/fetch failed/);
    await dying.ended;
    const states = async (): Promise<string[]> => {
      const rows = await database.query<{ state: string }>("select state from holdfast.runs");
      return rows.map(({ state }) => state);
    };
    expect(await states()).toHaveLength(left);
    const next = startHoldfast(args, { DATABASE_URL: url });
    onTestFinished(() => void next.process.kill("SIGKILL"));
    await next.says("Ready on");
    await until(
      async () => (await states()).every((state) => state === "success"),
      "the batch to be executed",
      30_000,
    );
    expect(await states()).toHaveLength(left);
  },
  60_000,
);

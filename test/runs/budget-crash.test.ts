// A server that dies in the middle of a call to a model: what the provider may have billed is charged, what it did bill for
// the next try too, and nothing stays reserved.
import { Client } from "@langchain/langgraph-sdk";
import { expect, onTestFinished, test } from "vitest";
import { createBudget, getBudget } from "../../server/runs/budgets.ts";
import { reconcile } from "../../server/storage/budgets.ts";
import { testDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { startFakeModel } from "../support/model.ts";
import { until } from "../support/until.ts";

// A prompt of 147 tokens at most and an answer of 50; the provider bills 9 and 2.
const [WORST, BILLED] = [197, 11];

test.each([
  ["call.sending", "before it was sent", WORST + BILLED],
  ["call.settled", "after it was settled", BILLED + BILLED],
])(
  "killed at %s, %s, a call is charged once, and so is that of the takeover",
  async (point, _when, spent) => {
    const [scratch, fake] = await Promise.all([testDatabase(), startFakeModel()]);
    const { database, url } = scratch;
    onTestFinished(() => Promise.all([scratch.close(), fake.stop()]).then(() => undefined));
    const limit = { scope: "tenant", unit: "tokens", period: "total", max: 1000 } as const;
    const { budget_id: id } = await createBudget(database, limit, { actorKind: "command" });
    const args = ["serve", "--port", "0", "--config", "test/fixtures/asking.langgraph.json"];
    const settings = { DATABASE_URL: url, OPENAI_BASE_URL: fake.url, HOLDFAST_MAX_OUTPUT_TOKENS: "50" };
    const dying = startHoldfast(args, { ...settings, HOLDFAST_FAULT: `${point}:1` });
    await dying.says("Ready on");
    const client = new Client({ apiUrl: /Ready on (\S+)/.exec(dying.out())?.[1] ?? "" });
    const { thread_id: thread } = await client.threads.create();
    await client.runs.create(thread, "asking", {
      input: { messages: [{ role: "user", content: "hello there" }] },
    });
    await dying.ended;
    const next = startHoldfast(args, settings);
    onTestFinished(() => void next.process.kill("SIGKILL"));
    const isOver = async (): Promise<boolean> => {
      const [period] = (await getBudget(database, id)).periods;
      return period?.spent === spent && period.reserved === 0;
    };
    await until(isOver, `${spent} tokens to be charged`, 30_000);
    expect(await reconcile(database)).toMatchObject({ drift: [], open: 0, excess: { periods: 0 } });
  },
  60_000,
);

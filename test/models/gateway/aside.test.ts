// What the server does for a call, such as counting it, is no silence of the model: a slow database opens no breaker.
import { afterAll, beforeAll, expect, test } from "vitest";
import { answering, frameOf, openRig, said, STREAM } from "../../support/gateway.ts";
import type { Answering, GatewayRig } from "../../support/gateway.ts";
import { testDatabase } from "../../support/database.ts";
import type { TestDatabase } from "../../support/database.ts";
import { until } from "../../support/until.ts";

const USAGE = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 };
const LIMIT_MS = 200;
const models = {
  defaults: {
    retries: 0,
    connect_ms: LIMIT_MS,
    between_tokens_ms: LIMIT_MS,
    breaker_min_calls: 1,
    breaker_open_ms: 60_000,
  },
};

let scratch: TestDatabase;
let provider: Answering;
let rig: GatewayRig;
beforeAll(async () => {
  scratch = await testDatabase();
  provider = await answering((_, response) => {
    const bill = frameOf({ choices: [], usage: USAGE });
    response.writeHead(200, STREAM).end(`${said("Yes.", { finish_reason: "stop" })}${bill}data: [DONE]\n\n`);
  });
  rig = await openRig(scratch.database, { tokens: 1_000_000, models });
});
afterAll(async () => {
  provider.close();
  await scratch.close();
});

const ask = (content: string): Promise<Response> =>
  rig.send(provider.url, {
    model: "m",
    stream: true,
    stream_options: { include_usage: true },
    messages: [{ role: "user", content }],
  });

/** Does `work` while nobody gets at the counter of the budget, for longer than the model may be silent. */
async function whileLocked<T>(work: () => Promise<T>): Promise<T> {
  const session = await scratch.database.session();
  await session.query("begin");
  await session.query("select from holdfast.budget_periods for update");
  const working = work();
  working.catch(() => undefined);
  const waiting =
    "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' and now() - query_start > $1::interval";
  const isLong = async (): Promise<boolean> =>
    (await scratch.database.query(waiting, [`${2 * LIMIT_MS} ms`])).length > 0;
  await until(isLong, "the lock to be waited for");
  await session.query("rollback");
  await session.close();
  return working;
}

test("a call that is counted slowly is made, and one whose bill is written slowly is whole", async () => {
  expect(await (await ask("first")).text()).toContain("Yes.");
  const counted = await whileLocked(() => ask("second"));
  expect([counted.status, await counted.text()]).toEqual([200, expect.stringContaining("Yes.")]);
  const answer = await ask("third");
  expect(await whileLocked(() => answer.text())).toContain("Yes.");
  expect((await ask("fourth")).status, "the breaker is shut").toBe(200);
  expect((await rig.calls()).slice(0, 3).map(({ state }) => state)).toEqual([
    "settled",
    "settled",
    "settled",
  ]);
});

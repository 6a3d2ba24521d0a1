// A database that answers and takes no writes, as on a full disk: what was accepted waits and goes on, and what is new is
// told to come again. The refusals are PostgreSQL's own, asked for by triggers.
import { afterEach, expect, test } from "vitest";
import { startGate } from "../fixtures/gate.ts";
import { collect, useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json" });

const TABLES = ["holdfast.runs", "holdfast.run_events", "public.checkpoints"];

async function refuse(sqlState: string): Promise<void> {
  const { database } = held.scratch;
  await database.query("create sequence public.refusals");
  await database.query(`create function public.refuse() returns trigger language plpgsql as $$ begin
    perform nextval('public.refusals');
    raise exception 'could not extend file' using errcode = '${sqlState}';
  end $$`);
  for (const table of TABLES)
    await database.query(
      `create trigger refuse before insert on ${table} for each row execute function public.refuse()`,
    );
}

async function relent(): Promise<void> {
  const { database } = held.scratch;
  // One lock at a time: servers write to several of the tables in one statement, and would wait for each other.
  for (const table of TABLES) await database.query(`drop trigger if exists refuse on ${table}`);
  await database.query("drop function if exists public.refuse()");
  await database.query("drop sequence if exists public.refusals");
}
afterEach(relent);

const refusals = async (): Promise<number> => {
  const [row] = await held.scratch.database.query<{ n: number }>(
    "select last_value as n from public.refusals",
  );
  return row?.n ?? 0;
};

test.each([
  ["a full disk", "53100", "PostgreSQL has no room to write. Try again later."],
  ["no memory", "53200", "PostgreSQL did not answer. Try again later."],
  ["a disk that fails", "58030", "PostgreSQL did not answer. Try again later."],
])(
  "with %s requests are 503 with a reason, and a live run ends well when it is over",
  async (_what, sqlState, reason) => {
    const { client, url } = held.server;
    const gate = await startGate();
    const { thread_id: threadId } = await client.threads.create();
    const live = client.runs.stream(threadId, "slow", { input: { gate: gate.url }, streamMode: "values" });
    const told = collect(live);
    await gate.waitFor("run");
    await refuse(sqlState);

    const body = JSON.stringify({ assistant_id: "keeping", input: { value: 1 } });
    const refused = await fetch(`${url}/runs`, { method: "POST", body });
    expect([refused.status, refused.headers.get("x-holdfast-code")]).toEqual([503, "database_unavailable"]);
    expect(await refused.text()).toBe(reason);

    gate.open("run");
    const before = await refusals();
    await until(async () => (await refusals()) > before + 3, "writes that are tried again");
    await relent();
    const frames = await told;
    expect(frames.filter(({ event }) => event === "error")).toEqual([]);
    expect(frames.at(-1)?.data).toMatchObject({ log: ["run:begin", "run:work", "run:finish"] });
    expect((await client.runs.list(threadId)).map(({ status }) => status)).toEqual(["success"]);
    await gate.stop();
  },
);

test("a run outlives a full disk that takes longer than anybody is patient, and it counts as no failed attempt", async () => {
  const { client } = held.server;
  const gate = await startGate();
  const { thread_id: threadId } = await client.threads.create();
  const { run_id: runId } = await client.runs.create(threadId, "slow", { input: { gate: gate.url } });
  await gate.waitFor("run");
  await refuse("53100");
  gate.open("run");
  const facts = async (): Promise<{ attempt: number; handovers: number; state: string } | undefined> => {
    const rows = await held.scratch.database.query<{ attempt: number; handovers: number; state: string }>(
      "select attempt, handovers, state from holdfast.runs where run_id = $1",
      [runId],
    );
    return rows[0];
  };
  await until(async () => ((await facts())?.handovers ?? 0) > 0, "the run to be given back", 60_000);
  await relent();
  await until(async () => (await facts())?.state === "success", "the run to end", 60_000);
  const ended = await facts();
  expect((ended?.attempt ?? 0) - (ended?.handovers ?? 0)).toBe(1);
  expect((await client.threads.getState<{ log: string[] }>(threadId)).values.log).toEqual([
    "run:begin",
    "run:work",
    "run:finish",
  ]);
  await gate.stop();
}, 120_000);

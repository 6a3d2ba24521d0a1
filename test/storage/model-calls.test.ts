// What calls to models may cost: reserved everywhere or nowhere, never above a limit, and each change in the ledger.
import { randomUUID } from "node:crypto";
import fc from "fast-check";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { uuidv7 } from "../../server/ids.ts";
import {
  insertBudget,
  listPeriods,
  reconcile,
  retireBudget,
  updateBudget,
} from "../../server/storage/budgets.ts";
import type { BudgetPlace } from "../../server/storage/budgets.ts";
import type { Database } from "../../server/storage/database.ts";
import {
  expireCalls,
  insertCalls,
  presumeCall,
  releaseCall,
  reserveCall,
  sendCall,
  settleCall,
} from "../../server/storage/model-calls.ts";
import type { Payer, Reservation } from "../../server/storage/model-calls.ts";
import { defaultScope as scope } from "../../server/storage/scope.ts";
import { openTestPool, testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { runsOf } from "../support/runs.ts";
import type { Runs } from "../support/runs.ts";

const assistantId = randomUUID();
let scratch: TestDatabase;
let database: Database;
let runs: Runs;

beforeAll(async () => {
  scratch = await testDatabase();
  ({ database } = scratch);
  runs = await runsOf(database);
});
afterAll(() => scratch.close());
beforeEach(() => database.query("update holdfast.budgets set retired_at = now() where retired_at is null"));

async function limit(max: number, place: Partial<BudgetPlace> = {}): Promise<string> {
  const budget = { scope: "tenant", scope_id: "default", unit: "tokens", period: "day", ...place } as const;
  const row = await insertBudget(database, scope, { ...budget, budget_id: uuidv7(), max });
  if (!row) throw new Error("There is such a budget already.");
  return row.budget_id;
}

const payer = async (userId?: string): Promise<Payer> => ({
  owner: await runs.newRun(),
  assistantId,
  userId,
});

interface Asked {
  readonly callId?: string;
  readonly microUsd?: number | null;
  readonly state?: "held" | "sent";
  readonly ttlMs?: number;
  readonly on?: Database;
}

const reserve = (by: Payer, tokens: number, asked: Asked = {}): Promise<Reservation> => {
  const { callId = uuidv7(), microUsd = null, state = "sent", ttlMs = 60_000, on = database } = asked;
  return reserveCall(on, scope, {
    callId,
    payer: by,
    model: "m",
    node: "generate",
    state,
    ttlMs,
    worst: { tokens, microUsd },
  });
};

const usage = (input: number, output: number) =>
  ({ input, cached: 0, output, microUsd: null, isEstimated: false }) as const;

async function balance(id: string): Promise<[spent: number, reserved: number, excess: number]> {
  const [period] = await listPeriods(database, [id], { isRunning: true, limit: 1 });
  return period ? [period.spent, period.reserved, period.excess] : [0, 0, 0];
}

test("a call is reserved in every budget it falls under, or in none", async () => {
  const by = await payer("alice");
  const [all, own] = [await limit(1000), await limit(50, { scope: "user", scope_id: "*" })];
  const thread = await limit(70, { scope: "thread", scope_id: by.owner.threadId, period: "total" });
  expect(await reserve(by, 40)).toEqual(expect.objectContaining({ outcome: "reserved" }));
  expect(await reserve(by, 20)).toMatchObject({
    outcome: "short",
    budget_id: own,
    free: 10,
    asked: 20,
    max: 50,
  });
  expect(await Promise.all([all, own, thread].map(balance))).toEqual([
    [0, 40, 0],
    [0, 40, 0],
    [0, 40, 0],
  ]);
});

test("one's own limit goes before the limit for each, and others have the latter", async () => {
  await limit(10, { scope: "user", scope_id: "*" });
  await limit(100, { scope: "user", scope_id: "alice" });
  expect(await reserve(await payer("alice"), 60)).toMatchObject({ outcome: "reserved" });
  expect(await reserve(await payer("bob"), 60)).toMatchObject({ outcome: "short", free: 10 });
  expect(await reserve(await payer(), 60)).toMatchObject({ outcome: "reserved" });
});

test("of several that are short the one that lasts longest is named", async () => {
  const by = await payer();
  await limit(1, { period: "minute" });
  const total = await limit(2, { period: "total" });
  await limit(3, { period: "day" });
  expect(await reserve(by, 5)).toMatchObject({ outcome: "short", budget_id: total, ends_at: null });
});

test("a budget of money refuses a model without a price, and counts one that has one", async () => {
  const by = await payer();
  const id = await limit(500, { unit: "micro_usd" });
  expect(await reserve(by, 5)).toMatchObject({ outcome: "unpriced", budget_id: id, asked: null });
  expect(await reserve(by, 5, { microUsd: 400 })).toMatchObject({ outcome: "reserved" });
  expect(await balance(id)).toEqual([0, 400, 0]);
});

test("hundreds at once on two servers are allowed exactly as far as the limits go", async () => {
  const other = openTestPool(scratch.url);
  const payers = await Promise.all(Array.from({ length: 8 }, (_, index) => payer(`user-${index % 4}`)));
  const all = await limit(100);
  await limit(40, { scope: "user", scope_id: "*" });
  const asked = payers.flatMap((by) =>
    Array.from({ length: 40 }, (_, index) => reserve(by, 1, { on: index % 2 ? other : database })),
  );
  const outcomes = Map.groupBy(await Promise.all(asked), ({ outcome }) => outcome);
  expect([outcomes.get("reserved")?.length, outcomes.get("short")?.length]).toEqual([100, 220]);
  expect(await balance(all)).toEqual([0, 100, 0]);
  expect((await reconcile(database)).drift).toEqual([]);
  await other.close();
});

test("asked twice, because the first answer was lost, a call is reserved once", async () => {
  const [by, callId] = [await payer(), uuidv7()];
  const id = await limit(100);
  expect([await reserve(by, 30, { callId }), await reserve(by, 30, { callId })]).toMatchObject([
    { outcome: "reserved" },
    { outcome: "reserved" },
  ]);
  expect(await balance(id)).toEqual([0, 30, 0]);
});

test("who has lost the run spends nothing more for it", async () => {
  const by = await payer();
  await limit(100);
  await database.query("update holdfast.runs set attempt = 2 where run_id = $1", [by.owner.runId]);
  expect(await reserve(by, 1)).toMatchObject({ outcome: "lost" });
});

test("settling charges what was used and gives back the rest, once", async () => {
  const [by, callId] = [await payer(), uuidv7()];
  const id = await limit(100);
  await reserve(by, 80, { callId });
  expect(await settleCall(database, callId, usage(20, 10))).toBe(true);
  expect(await settleCall(database, callId, usage(99, 99))).toBe(false);
  expect(await balance(id)).toEqual([30, 0, 0]);
});

test("a provider that bills more than it may is charged in full, and the excess is seen", async () => {
  const [by, callId] = [await payer(), uuidv7()];
  const id = await limit(50);
  await reserve(by, 40, { callId });
  await settleCall(database, callId, usage(60, 20));
  expect(await balance(id)).toEqual([80, 0, 40]);
  expect(await reserve(by, 1)).toMatchObject({ outcome: "short", free: 0 });
});

test("a held call may be sent while its time lasts, and given back when it is not", async () => {
  const [by, [first, late, unused]] = [await payer(), [uuidv7(), uuidv7(), uuidv7()]];
  const id = await limit(100);
  for (const callId of [first, unused]) await reserve(by, 10, { callId, state: "held" });
  await reserve(by, 10, { callId: late, state: "held", ttlMs: 0 });
  const at = { node: "n", workerId: runs.workerId };
  expect([await sendCall(database, first, at), await sendCall(database, late, at)]).toEqual([true, false]);
  expect(await releaseCall(database, unused)).toBe(true);
  expect(await balance(id)).toEqual([0, 20, 0]);
});

async function expire(): Promise<void> {
  while ((await expireCalls(database, 1)) > 0);
}

describe("calls that nobody closes", () => {
  test("when their time is over, what was held is given back and what was sent is charged at its worst case", async () => {
    const [by, callId] = [await payer(), uuidv7()];
    const id = await limit(100);
    await reserve(by, 10, { state: "held", ttlMs: 0 });
    await reserve(by, 20, { callId, ttlMs: 0 });
    await reserve(by, 30);
    await expire();
    expect(await balance(id)).toEqual([20, 30, 0]);
    // Its owner was only slow.
    expect(await settleCall(database, callId, usage(3, 4))).toBe(true);
    expect(await balance(id)).toEqual([7, 30, 0]);
  });

  test("when their attempt is over, they are closed at once", async () => {
    const [by, other] = [await payer(), await payer()];
    const id = await limit(100);
    await reserve(by, 10);
    await reserve(by, 20, { state: "held" });
    await reserve(other, 10);
    await database.query("update holdfast.runs set attempt = 2 where run_id = $1", [by.owner.runId]);
    await expire();
    expect(await balance(id)).toEqual([10, 10, 0]);
  });
});

test("a limit that is changed holds from the next call on", async () => {
  const by = await payer();
  const id = await limit(100);
  await reserve(by, 80);
  await updateBudget(database, scope, id, 50);
  expect(await reserve(by, 1)).toMatchObject({ outcome: "short", max: 50, free: 0 });
  await updateBudget(database, scope, id, 200);
  expect(await reserve(by, 120)).toMatchObject({ outcome: "reserved" });
  await retireBudget(database, scope, id);
  expect(await reserve(by, 9999)).toMatchObject({ outcome: "reserved" });
});

test("a period that is over leaves room again, and keeps what it counted", async () => {
  const by = await payer();
  const id = await limit(10, { period: "minute" });
  await reserve(by, 10);
  const past =
    "update holdfast.budget_periods set starts_at = starts_at - interval '1 h', ends_at = ends_at - interval '1 h' where budget_id = $1";
  await database.query(past, [id]);
  expect(await reserve(by, 10)).toMatchObject({ outcome: "reserved" });
  expect(await listPeriods(database, [id], { isRunning: false, limit: 10 })).toHaveLength(2);
});

test("the ledger takes no change and no deletion", async () => {
  await limit(100);
  await reserve(await payer(), 1);
  for (const statement of [
    "update holdfast.budget_entries set spent = 0",
    "delete from holdfast.budget_entries",
  ])
    await expect(database.query(statement)).rejects.toThrow("append-only");
});

test("whatever happens to calls, counters are the sum of their entries and never above the limit", async () => {
  const step = fc.record({
    does: fc.constantFrom("settle", "release", "expire", "over"),
    asked: fc.integer({ min: 0, max: 60 }),
    share: fc.integer({ min: 0, max: 100 }),
  });
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 12 }), async (steps) => {
      const by = await payer(uuidv7());
      const id = await limit(100, { scope: "user", scope_id: by.userId ?? "", period: "total" });
      let overbilled = 0;
      for (const { does, asked, share } of steps) {
        const callId = uuidv7();
        const { outcome } = await reserve(by, asked, { callId, ttlMs: does === "expire" ? 0 : 60_000 });
        if (outcome !== "reserved") continue;
        if (does === "release") await releaseCall(database, callId);
        if (does === "settle")
          await settleCall(database, callId, usage(Math.floor((asked * share) / 100), 0));
        if (does === "over") await settleCall(database, callId, usage(asked + share, 0));
        if (does === "over") overbilled += share;
      }
      await expireCalls(database, 100);
      if (steps.length === 0) return;
      const [spent, reserved] = await balance(id);
      expect(spent + reserved).toBeLessThanOrEqual(100 + overbilled);
      expect((await reconcile(database)).drift).toEqual([]);
    }),
    { numRuns: 30 },
  );
});

/** What is open of a call, and what it has been charged. */
interface ModelCall {
  readonly callId: string;
  readonly asked: number;
  state: "held" | "sent" | "presumed" | "settled" | "released";
  isDue: boolean;
  charged: number;
}
const FROM: Readonly<Record<string, readonly ModelCall["state"][]>> = {
  settle: ["sent", "presumed"],
  presume: ["sent"],
  release: ["held", "sent", "presumed"],
  send: ["held", "sent"],
};
const STATES = { settle: "settled", presume: "presumed", release: "released", send: "sent" } as const;

test("calls that end twice, late or in any order, and limits that change under them, are counted as each was last heard of", async () => {
  const step = fc.record({
    does: fc.constantFrom(
      "reserve",
      "reserve",
      "reserve",
      "settle",
      "presume",
      "release",
      "send",
      "pass",
      "expire",
      "limit",
    ),
    of: fc.nat(5),
    asked: fc.integer({ min: 0, max: 60 }),
    used: fc.integer({ min: 0, max: 90 }),
    isHeld: fc.boolean(),
  });
  let closedTwice = 0;
  const law = fc.asyncProperty(
    fc.array(step, { minLength: 4, maxLength: 25, size: "max" }),
    async (steps) => {
      const by = await payer(uuidv7());
      let max = 100;
      const id = await limit(max, { scope: "user", scope_id: by.userId ?? "", period: "total" });
      const calls: ModelCall[] = [];
      const spent = (): number => calls.reduce((sum, one) => sum + one.charged, 0);
      const reserved = (): number =>
        calls.reduce((sum, { state, asked }) => sum + (state === "held" || state === "sent" ? asked : 0), 0);
      const { workerId } = by.owner;
      const act = {
        settle: ({ callId }: ModelCall, used: number) => settleCall(database, callId, usage(used, 0)),
        presume: ({ callId }: ModelCall) => presumeCall(database, callId),
        release: ({ callId }: ModelCall) => releaseCall(database, callId),
        send: ({ callId }: ModelCall) => sendCall(database, callId, { node: "n", workerId }),
      };
      for (const { does, of, asked, used, isHeld } of steps) {
        const one = calls[of % Math.max(1, calls.length)];
        let [answer, wanted]: unknown[] = [];
        if (does === "reserve") {
          const [callId, state] = [uuidv7(), isHeld ? ("held" as const) : ("sent" as const)];
          const free = max - spent() - reserved();
          const { outcome } = await reserve(by, asked, { callId, state });
          [answer, wanted] = [outcome, asked <= free ? "reserved" : "short"];
          if (outcome === "reserved") calls.push({ callId, asked, state, isDue: false, charged: 0 });
        } else if (does === "limit") {
          max = 40 + used;
          await updateBudget(database, scope, id, max);
        } else if (does === "expire") {
          await expireCalls(database, 100);
          for (const call of calls.filter(({ isDue }) => isDue)) {
            if (call.state === "sent") call.charged = call.asked;
            if (call.state === "sent" || call.state === "held")
              call.state = call.state === "sent" ? "presumed" : "released";
          }
        } else if (one && does === "pass") {
          one.isDue = true;
          await database.query(
            "update holdfast.model_calls set expires_at = now() - interval '1 s' where call_id = $1",
            [one.callId],
          );
        } else if (one && does !== "pass") {
          const isFine = (FROM[does] ?? []).includes(one.state) && !(does === "send" && one.isDue);
          if (!isFine) closedTwice += 1;
          [answer, wanted] = [await act[does](one, used), isFine];
          if (isFine) {
            one.charged = does === "settle" ? used : does === "presume" ? one.asked : 0;
            one.state = STATES[does];
          }
        }
        const [isSpent, isReserved] = await balance(id);
        expect([does, answer, isSpent, isReserved]).toEqual([does, wanted, spent(), reserved()]);
      }
      expect((await reconcile(database)).drift).toEqual([]);
    },
  );
  await fc.assert(law, { numRuns: 15 });
  expect(closedTwice).toBeGreaterThan(5);
});

test("calls without a budget are noted together, each once", async () => {
  const used = { input: 3, cached: 1, output: 9, microUsd: null, isEstimated: false };
  const first = {
    scope,
    call: { callId: uuidv7(), payer: await payer("somebody"), model: "m", node: "a" },
    usage: used,
  };
  const second = {
    scope,
    call: { callId: uuidv7(), payer: await payer(), model: "m", node: undefined },
    usage: { ...used, microUsd: 7, isEstimated: true },
  };
  await insertCalls(database, [first, second]);
  await insertCalls(database, [second]);
  const rows = await database.query(
    `select call_id, run_id, user_id, node, state, input_tokens::int, cached_tokens::int, output_tokens::int,
        micro_usd::int, is_estimated, ended_at is not null as has_ended
      from holdfast.model_calls where call_id = any($1) order by call_id`,
    [[first.call.callId, second.call.callId]],
  );
  const same = { state: "settled", input_tokens: 3, cached_tokens: 1, output_tokens: 9, has_ended: true };
  expect(rows).toEqual([
    expect.objectContaining({
      ...same,
      run_id: first.call.payer.owner.runId,
      user_id: "somebody",
      node: "a",
      micro_usd: null,
      is_estimated: false,
    }),
    expect.objectContaining({
      ...same,
      run_id: second.call.payer.owner.runId,
      user_id: null,
      node: null,
      micro_usd: 7,
      is_estimated: true,
    }),
  ]);
});

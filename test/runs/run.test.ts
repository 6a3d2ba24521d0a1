// The table of a run's states is one with the database's, and every run can reach an end.
import { afterAll, beforeAll, expect, test } from "vitest";
import { MOVES, isPending, isTerminal } from "../../server/storage/run-states.ts";
import type { RunState } from "../../server/storage/run-states.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

// The keys of the table are exactly the states.
const states = Object.keys(MOVES) as RunState[];

test("the database allows exactly the states of the table", async () => {
  const [row] = await scratch.database.query<{ rule: string }>(
    "select pg_get_constraintdef(oid) as rule from pg_constraint where conname = 'runs_state'",
  );
  const allowed = [...(row?.rule ?? "").matchAll(/'(\w+)'/g)].map(([, state]) => state);
  expect(new Set(allowed)).toEqual(new Set(states));
});

test("from every state an end can be reached, and from an end only a failed run comes back", () => {
  for (const state of states) {
    const reached = new Set<RunState>([state]);
    for (const one of reached) for (const next of MOVES[one]) reached.add(next);
    expect([...reached].some(isTerminal)).toBe(true);
    const after = isTerminal(state) ? [...MOVES[state]] : [];
    expect(after).toEqual(state === "error" || state === "timeout" ? ["blocked"] : []);
    expect(isPending(state) && isTerminal(state)).toBe(false);
  }
});

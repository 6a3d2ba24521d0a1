// holdfast budget: limits by command, and books that doctor looks at.
import { afterAll, beforeAll, expect, test } from "vitest";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast } from "../support/holdfast.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

const budget = (...args: string[]): ReturnType<typeof holdfast> =>
  holdfast(["budget", ...args], { DATABASE_URL: scratch.url });

test("a budget is made, changed where it is there already, listed and deleted", async () => {
  const set = ["set", "--scope", "user", "--of", "alice@example.org", "--per", "day"];
  const made = await budget(...set, "--usd", "2.5", "--json");
  const changed = await budget(...set, "--usd", "4", "--json");
  const [first, second] = [made, changed].map(
    ({ out }) => JSON.parse(out) as { budget_id: string; max: number },
  );
  expect(second).toMatchObject({ budget_id: first?.budget_id, max: 4 });
  const { out } = await budget("list");
  expect(out).toContain("$4 a day");
  expect(out).not.toContain("alice");
  const id = first?.budget_id ?? "";
  expect(await budget("delete", id)).toMatchObject({ code: 0 });
  expect(await budget("delete", id)).toMatchObject({ code: 2, out: expect.stringContaining("not found") });
  expect(await budget("delete", "nonsense")).toMatchObject({
    code: 2,
    out: expect.stringContaining("not found"),
  });
  expect((await budget("list")).out).toContain("Nothing is limited");
});

test.each([
  [["set", "--scope", "user", "--per", "day"], "--usd or as --tokens"],
  [["set", "--scope", "user", "--per", "day", "--tokens", "-5"], "--tokens: "],
  [["set", "--scope", "user", "--per", "day", "--tokens", "many"], "--tokens: "],
  [["set", "--scope", "user", "--per", "day", "--tokens", "0x10"], "--tokens: "],
  [["set", "--scope", "user", "--per", "day", "--usd", ""], "--usd: "],
  [["set", "--scope", "user", "--of", "", "--per", "day", "--usd", "1"], "--of: "],
  [["set", "--scope", "galaxy", "--per", "day", "--tokens", "5"], "--scope: "],
  [["set", "--scope", "user", "--per", "week", "--tokens", "5"], "--per: "],
  [["usage", "--by", "colour"], "--by: "],
])("what makes no sense is refused with a sentence: %j", async (args, said) => {
  const { code, out } = await budget(...args);
  expect(code).toBe(2);
  expect(out).toContain(said);
});

test("doctor finds a counter that somebody changed past the server", async () => {
  await budget("set", "--scope", "tenant", "--per", "total", "--tokens", "5");
  await scratch.database.query(
    `insert into holdfast.budget_periods (budget_id, scope_id, starts_at, max, spent)
     select budget_id, 'default', 'epoch', 5, 3 from holdfast.budgets where retired_at is null`,
  );
  const { out } = await holdfast(["doctor"], {
    DATABASE_URL: scratch.url,
    HOLDFAST_CONFIG: "test/fixtures/langgraph.json",
  });
  expect(out).toMatch(/PROBLEM budgets: 1 counters differ/);
});

test("an amount may begin with its point", async () => {
  const { code, out } = await budget("set", "--scope", "thread", "--per", "day", "--usd", ".5");
  expect([code, out]).toEqual([0, expect.stringContaining("$0.5 a day")]);
});

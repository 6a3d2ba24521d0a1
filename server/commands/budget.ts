// holdfast budget: sets and lists limits, shows what was used. What it takes is checked as the routes check it.
import type { z } from "zod";
import { now } from "../clock.ts";
import type { Config } from "../config.ts";
import { AppError, messageOf } from "../errors.ts";
import { budgetCreate, usageQuery } from "../http/budget-schemas.ts";
import { deleteBudget, searchBudgets, searchUsage, setBudget as putBudget } from "../runs/budgets.ts";
import type { Actor, Budget } from "../runs/budgets.ts";
import type { Database } from "../storage/database.ts";
import { withDatabase } from "./database.ts";

type Say = (text: string) => void;

interface Asked {
  readonly json?: boolean;
  readonly say: Say;
}

const COMMAND: Actor = { actorKind: "command" };
const MOST = 1000;
const DAY_MS = 86_400_000;

/** What a field is called where it was typed. */
const OPTIONS: Readonly<Record<string, string>> = { scope_id: "--of", period: "--per", from: "--days" };

/** @returns the exit code: 0, or 2 when it was asked for what cannot be */
export async function setBudget(
  config: Config,
  asked: Asked & { scope: string; of?: string; per: string; usd?: string; tokens?: string },
): Promise<number> {
  const { scope, of, per, usd, tokens, say } = asked;
  if ((usd === undefined) === (tokens === undefined)) {
    say("Give the limit either as --usd or as --tokens.");
    return 2;
  }
  const unit = usd === undefined ? "tokens" : "usd";
  const request = { scope, scope_id: of, unit, period: per, max: amountIn(usd ?? tokens ?? "") };
  return checked(budgetCreate, request, { say, options: { ...OPTIONS, max: `--${unit}` } }, (given) =>
    onDatabase(config, asked, async (database) => {
      const budget = await putBudget(database, given, COMMAND);
      say(asked.json ? JSON.stringify(budget) : lineOf(budget));
    }),
  );
}

/** As people write amounts: to Number an empty text is 0, which would refuse every call, and 0x10 is 16. */
const amountIn = (text: string): number =>
  /^[+-]?(\d+\.?\d*|\.\d+)$/.test(text.trim()) ? Number(text) : Number.NaN;

/** @returns the exit code */
export async function showBudgets(config: Config, asked: Asked): Promise<number> {
  return onDatabase(config, asked, async (database) => {
    const budgets = await searchBudgets(database, { limit: MOST, offset: 0 });
    if (asked.json) asked.say(JSON.stringify(budgets));
    else if (budgets.length === 0) asked.say("Nothing is limited: holdfast budget set makes a budget.");
    else
      for (const budget of budgets)
        asked.say([lineOf(budget), ...budget.periods.map((one) => periodLine(one, budget))].join("\n"));
  });
}

/** @returns the exit code: 0, or 2 when there is none */
export async function removeBudget(config: Config, asked: Asked & { id: string }): Promise<number> {
  return onDatabase(config, asked, async (database) => {
    await deleteBudget(database, asked.id, COMMAND);
    asked.say(`Budget ${asked.id} limits nothing any more.`);
  });
}

/** @returns the exit code */
export async function showUsage(
  config: Config,
  asked: Asked & { by: string; days: number },
): Promise<number> {
  const from = new Date(now() - asked.days * DAY_MS).toISOString();
  return checked(usageQuery, { by: asked.by, from }, { say: asked.say, options: OPTIONS }, (query) =>
    onDatabase(config, asked, async (database) => {
      const lines = await searchUsage(database, query);
      if (asked.json) asked.say(JSON.stringify(lines));
      else if (lines.length === 0) asked.say("No model was called.");
      else
        for (const { group, calls, input_tokens: input, output_tokens: output, usd } of lines)
          asked.say(`${group ?? "(none)"}: ${calls} calls, ${input} + ${output} tokens, $${usd}`);
    }),
  );
}

async function checked<Schema extends z.ZodType>(
  schema: Schema,
  given: unknown,
  { say, options }: { say: Say; options: Readonly<Record<string, string>> },
  work: (value: z.output<Schema>) => Promise<number>,
): Promise<number> {
  const result = schema.safeParse(given);
  if (result.success) return work(result.data);
  const [issue] = result.error.issues;
  const field = issue?.path.join(".") ?? "";
  say(`${options[field] ?? `--${field}`}: ${issue?.message ?? "is wrong"}.`);
  return 2;
}

async function onDatabase(
  config: Config,
  { json = false, say }: Asked,
  work: (database: Database) => Promise<void>,
): Promise<number> {
  try {
    await withDatabase(config, work, json ? undefined : say);
    return 0;
  } catch (error) {
    if (!(error instanceof AppError) || error.status >= 500) throw error;
    say(messageOf(error));
    return 2;
  }
}

const lineOf = ({ budget_id: id, scope, scope_id: whose, max, unit, period }: Budget): string =>
  `${id}  ${scope} ${whose === "*" ? "(each)" : whose}: ${amountOf(max, unit)} ${period === "total" ? "in all" : `a ${period}`}`;

const periodLine = (one: Budget["periods"][number], { unit }: Budget): string =>
  `  ${one.scope_id}: ${amountOf(one.spent, unit)} spent, ${amountOf(one.reserved, unit)} reserved, ${amountOf(one.free, unit)} free` +
  (one.resets_at ? `, until ${one.resets_at.toISOString()}` : "");

const amountOf = (amount: number, unit: Budget["unit"]): string =>
  unit === "usd" ? `$${amount}` : `${amount} tokens`;

// Budgets as their operators see them: amounts in tokens or dollars, users by the name that auth knows them by. A user's
// name is never kept: its pseudonym is. Each change stands in the audit log, in the transaction that makes it.
import { AssistantNotFound, BudgetExists, BudgetNotFound, InputInvalid } from "../errors.ts";
import { assistantIdOf, isUuid, uuidv7 } from "../ids.ts";
import { findAssistant } from "../storage/assistants.ts";
import { insertAudit } from "../storage/audit.ts";
import type { AuditEntry } from "../storage/audit.ts";
import {
  findBudget,
  insertBudget,
  listBudgets,
  listPeriods,
  retireBudget,
  updateBudget,
  usageBy,
} from "../storage/budgets.ts";
import type { BudgetPlace, BudgetRow, PeriodRow, UsageGroup } from "../storage/budgets.ts";
import type { Database, Queryable } from "../storage/database.ts";
import { pseudonymOf } from "../storage/keys/pseudonyms.ts";
import { defaultScope } from "../storage/scope.ts";

export const BUDGET_UNITS = ["tokens", "usd"] as const;
type Unit = (typeof BUDGET_UNITS)[number];

/** Who changes something, for the audit log. */
export type Actor = Pick<AuditEntry, "actorKind" | "actorHash">;

/** As it is asked for; `scope_id` of a user is his identity. */
export interface BudgetRequest {
  readonly scope: BudgetPlace["scope"];
  /** Left out: the tenant itself, or each user, assistant or thread for itself. */
  readonly scope_id?: string | undefined;
  readonly unit: Unit;
  readonly period: BudgetPlace["period"];
  readonly max: number;
}

interface BudgetPeriod {
  readonly scope_id: string;
  readonly starts_at: Date | null;
  /** When it begins anew; null: never. */
  readonly resets_at: Date | null;
  readonly max: number;
  readonly spent: number;
  /** Of calls that are under way. */
  readonly reserved: number;
  readonly free: number;
}

export interface Budget extends Omit<BudgetRow, "unit"> {
  readonly unit: Unit;
  readonly periods: readonly BudgetPeriod[];
}

/** For whichever of its scope: each has a counter of its own. */
const EACH = "*";
const MICRO = 1_000_000;
const MOST_PERIODS = 1000;
/** More than there are units and periods. */
const OF_ONE = 100;

/** @throws BudgetExists, AssistantNotFound, InputInvalid */
export async function createBudget(
  database: Database,
  request: BudgetRequest,
  actor: Actor,
): Promise<Budget> {
  const place = { ...request, scope_id: await scopeIdOf(database, request), unit: storedUnit(request.unit) };
  const budget = { ...place, budget_id: uuidv7(), max: stored(request.unit, request.max) };
  const row = await audited(database, { ...actor, action: "budget.created" }, async (transaction) =>
    insertBudget(transaction, defaultScope, budget),
  );
  if (!row) throw new BudgetExists();
  return shown(row, []);
}

/** Makes it, or changes the limit of the one that is there. */
export async function setBudget(database: Database, request: BudgetRequest, actor: Actor): Promise<Budget> {
  const { scope, unit, period, max } = request;
  const page = { scope, scopeId: await scopeIdOf(database, request), limit: OF_ONE, offset: 0 };
  const there = (await listBudgets(database, defaultScope, page)).find(
    (one) => one.unit === storedUnit(unit) && one.period === period,
  );
  return there
    ? changeBudget(database, { id: there.budget_id, max }, actor)
    : createBudget(database, request, actor);
}

/** @throws BudgetNotFound, InputInvalid for an amount that its unit does not have */
export async function changeBudget(
  database: Database,
  { id, max }: { id: string; max: number },
  actor: Actor,
): Promise<Budget> {
  const before = await findOne(database, id);
  const entry = { ...actor, action: "budget.changed", detail: { was: before.max } };
  const row = await audited(database, entry, async (transaction) =>
    updateBudget(transaction, defaultScope, id, stored(shownUnit(before.unit), max)),
  );
  if (!row) throw new BudgetNotFound();
  return getBudget(database, id);
}

/** It limits nothing any more; what it counted stays in the ledger. @throws BudgetNotFound */
export async function deleteBudget(database: Database, id: string, actor: Actor): Promise<void> {
  const before = await findOne(database, id);
  const row = await audited(database, { ...actor, action: "budget.deleted" }, async (transaction) =>
    (await retireBudget(transaction, defaultScope, id)) ? before : undefined,
  );
  if (!row) throw new BudgetNotFound();
}

/** With its newest periods, those that are over too. @throws BudgetNotFound */
export async function getBudget(database: Database, id: string): Promise<Budget> {
  const row = await findOne(database, id);
  return shown(row, await listPeriods(database, [id], { isRunning: false, limit: MOST_PERIODS }));
}

export interface BudgetQuery {
  readonly scope?: BudgetPlace["scope"] | undefined;
  /** Of a user, his identity. */
  readonly scope_id?: string | undefined;
  readonly limit: number;
  readonly offset: number;
}

/** With the periods that run. */
export async function searchBudgets(database: Database, query: BudgetQuery): Promise<Budget[]> {
  const { scope, scope_id: given, limit, offset } = query;
  const scopeId =
    given !== undefined && scope !== undefined ? await storedIdOf(database, scope, given) : given;
  const rows = await listBudgets(database, defaultScope, { scope, scopeId, limit, offset });
  const ids = rows.map(({ budget_id: id }) => id);
  const periods = await listPeriods(database, ids, { isRunning: true, limit: MOST_PERIODS });
  return rows.map((row) =>
    shown(
      row,
      periods.filter(({ budget_id: id }) => id === row.budget_id),
    ),
  );
}

export interface UsageQuery {
  readonly by: UsageGroup;
  readonly from: Date;
  readonly to: Date;
  readonly thread_id?: string | undefined;
  readonly limit: number;
}

export interface UsageLine {
  readonly group: string | null;
  readonly calls: number;
  readonly input_tokens: number;
  readonly cached_tokens: number;
  readonly output_tokens: number;
  readonly usd: number;
  readonly unpriced_calls: number;
  readonly presumed_calls: number;
}

/** What calls to models were and cost, by day (UTC), model, node, thread, assistant or user. */
export async function searchUsage(database: Database, query: UsageQuery): Promise<UsageLine[]> {
  const { thread_id: id } = query;
  const threadId = id === undefined ? undefined : await storedIdOf(database, "thread", id);
  const rows = await usageBy(database, defaultScope, { ...query, threadId });
  return rows.map((row) => ({
    group: row.group,
    calls: row.calls,
    input_tokens: row.input_tokens,
    cached_tokens: row.cached_tokens,
    output_tokens: row.output_tokens,
    usd: row.micro_usd / MICRO,
    unpriced_calls: row.unpriced_calls,
    presumed_calls: row.presumed_calls,
  }));
}

async function findOne(database: Database, id: string): Promise<BudgetRow> {
  const row = isUuid(id) ? await findBudget(database, defaultScope, id) : undefined;
  if (!row) throw new BudgetNotFound();
  return row;
}

async function audited(
  database: Database,
  entry: Actor & { readonly action: string; readonly detail?: AuditEntry["detail"] },
  work: (transaction: Queryable) => Promise<BudgetRow | undefined>,
): Promise<BudgetRow | undefined> {
  return database.transaction(async (transaction) => {
    const row = await work(transaction);
    if (!row) return undefined;
    const { budget_id: id, scope, scope_id, unit, period, max } = row;
    const detail = { scope, scope_id, unit, period, max, ...entry.detail };
    await insertAudit(transaction, { ...entry, object: `budget ${id}`, outcome: "done", detail });
    return row;
  });
}

/** @throws AssistantNotFound, InputInvalid */
async function scopeIdOf(database: Database, { scope, scope_id: id }: BudgetRequest): Promise<string> {
  if (scope === "tenant") {
    if (id !== undefined)
      throw new InputInvalid("scope_id: a budget of the whole tenant has none. Leave it out.");
    return defaultScope.tenantId;
  }
  const kept = await storedIdOf(database, scope, id ?? EACH);
  const isOfOne = scope === "assistant" && kept !== EACH;
  // A limit on nobody would be taken for one.
  if (scope === "thread" && kept !== EACH && !isUuid(kept))
    throw new InputInvalid("scope_id: a thread is named by a UUID.");
  if (isOfOne && !(await findAssistant(database, kept)))
    throw new AssistantNotFound(
      `No assistant found for "${id}". Name one by its id, or by a graph that a server of this database has served.`,
    );
  return kept;
}

/** As calls are counted under it. */
async function storedIdOf(database: Database, scope: BudgetPlace["scope"], id: string): Promise<string> {
  if (id === EACH || scope === "tenant") return id;
  if (scope === "user") return pseudonymOf(database, id);
  if (isUuid(id)) return id.toLowerCase();
  return scope === "assistant" ? assistantIdOf(id) : id;
}

const storedUnit = (unit: Unit): BudgetRow["unit"] => (unit === "usd" ? "micro_usd" : "tokens");
const shownUnit = (unit: BudgetRow["unit"]): Unit => (unit === "tokens" ? "tokens" : "usd");

/** Whether an amount is one of its unit: whole tokens, or dollars with at most six decimals. */
export function isAmount(unit: Unit, amount: number): boolean {
  if (unit === "tokens") return Number.isSafeInteger(amount);
  const micro = amount * MICRO;
  // 0.1 + 0.2 dollars are three decimals more than anybody wrote.
  return Math.abs(Math.round(micro) - micro) < 0.000_01 * Math.max(1, amount);
}

function stored(unit: Unit, amount: number): number {
  if (!isAmount(unit, amount))
    throw new InputInvalid(
      unit === "usd"
        ? "max must be dollars with at most six decimals."
        : "max must be a whole number of tokens.",
    );
  return unit === "usd" ? Math.round(amount * MICRO) : amount;
}

function shown(row: BudgetRow, periods: readonly PeriodRow[]): Budget {
  const unit = shownUnit(row.unit);
  const amount = (value: number): number => (unit === "usd" ? value / MICRO : value);
  return {
    ...row,
    unit,
    max: amount(row.max),
    periods: periods.map((one) => ({
      scope_id: one.scope_id,
      starts_at: one.ends_at === null ? null : one.starts_at,
      resets_at: one.ends_at,
      max: amount(one.max),
      spent: amount(one.spent),
      reserved: amount(one.reserved),
      free: amount(Math.max(0, one.max - one.spent - one.reserved)),
    })),
  };
}

// Rows of holdfast.budgets and what they have counted. A budget that was deleted limits nothing any more; its periods and
// their entries stay, because a ledger is only ever added to.
import type { Queryable } from "./database.ts";
import type { Scope } from "./scope.ts";

export const SCOPES = ["tenant", "user", "assistant", "thread"] as const;
const UNITS = ["tokens", "micro_usd"] as const;
export const PERIODS = ["minute", "hour", "day", "month", "total"] as const;

/** Of whom a limit is; `*` in scope_id: of each one for himself. */
export interface BudgetPlace {
  readonly scope: (typeof SCOPES)[number];
  readonly scope_id: string;
  readonly unit: (typeof UNITS)[number];
  readonly period: (typeof PERIODS)[number];
}

export interface BudgetRow extends BudgetPlace {
  readonly budget_id: string;
  readonly max: number;
  readonly created_at: Date;
  readonly updated_at: Date;
}

/** What was counted for one of those a budget is for, in one stretch of time. */
export interface PeriodRow {
  readonly budget_id: string;
  readonly scope_id: string;
  readonly starts_at: Date;
  readonly ends_at: Date | null;
  readonly max: number;
  readonly spent: number;
  readonly reserved: number;
  readonly excess: number;
}

export interface UsageRow {
  readonly group: string | null;
  readonly calls: number;
  readonly input_tokens: number;
  readonly cached_tokens: number;
  readonly output_tokens: number;
  readonly micro_usd: number;
  /** Calls of models that have no price: they are missing from micro_usd. */
  readonly unpriced_calls: number;
  /** Calls that were charged at their worst case, because nobody heard what they cost. */
  readonly presumed_calls: number;
}

export const USAGE_GROUPS = ["day", "model", "node", "thread", "assistant", "user"] as const;
export type UsageGroup = (typeof USAGE_GROUPS)[number];

const COLUMNS = "budget_id, scope, scope_id, unit, period, max, created_at, updated_at";

const insertBudgetRow = `/* insertBudget */
insert into holdfast.budgets (budget_id, tenant_id, scope, scope_id, unit, period, max) values ($1, $2, $3, $4, $5, $6, $7)
on conflict (tenant_id, scope, scope_id, unit, period) where retired_at is null do nothing
returning ${COLUMNS}`;

const updateBudgetRow = `/* updateBudget */
update holdfast.budgets set max = $3, updated_at = now()
 where tenant_id = $1 and budget_id = $2 and retired_at is null returning ${COLUMNS}`;

const retireBudgetRow = `/* retireBudget */
update holdfast.budgets set retired_at = now() where tenant_id = $1 and budget_id = $2 and retired_at is null returning budget_id`;

const findBudgetRow = `/* findBudget */
select ${COLUMNS} from holdfast.budgets where tenant_id = $1 and budget_id = $2 and retired_at is null`;

const listBudgetRows = `/* listBudgets */
select ${COLUMNS} from holdfast.budgets
 where tenant_id = $1 and retired_at is null and ($2::text is null or scope = $2) and ($3::text is null or scope_id = $3)
 order by created_at, budget_id limit $4 offset $5`;

const listPeriodRows = `/* listPeriods */
select p.budget_id, p.scope_id, p.starts_at, p.ends_at, b.max, p.spent, p.reserved, p.excess
  from holdfast.budgets b cross join lateral (
    select * from (
      (select * from holdfast.budget_periods q where q.budget_id = b.budget_id and q.ends_at is null limit $3)
      union all
      (select * from holdfast.budget_periods q where q.budget_id = b.budget_id and q.ends_at > now() limit $3)
      union all
      (select * from holdfast.budget_periods q where not $2 and q.budget_id = b.budget_id and q.ends_at <= now()
        order by q.ends_at desc limit $3)) as one
     order by starts_at desc, period_id desc limit $3) p
 where b.budget_id = any ($1::uuid[])`;

const hasBudgetRow = `/* hasBudget */
select exists (select 1 from holdfast.budgets where tenant_id = $1 and retired_at is null) as has`;

const usageOf = (name: string, group: string): string => `/* ${name} */
select ${group} as "group", count(*)::int as calls, coalesce(sum(input_tokens), 0)::bigint as input_tokens,
       coalesce(sum(cached_tokens), 0)::bigint as cached_tokens, coalesce(sum(output_tokens), 0)::bigint as output_tokens,
       coalesce(sum(micro_usd), 0)::bigint as micro_usd,
       (count(*) filter (where micro_usd is null and state = 'settled'))::int as unpriced_calls,
       (count(*) filter (where state = 'presumed'))::int as presumed_calls
  from holdfast.model_calls
 where tenant_id = $1 and state in ('settled', 'presumed') and created_at >= $2 and created_at < $3
   and ($4::text is null or thread_id = $4)
 group by 1 order by 1 limit $5`;

const usageRows: Readonly<Record<UsageGroup, string>> = {
  day: usageOf("usageByDay", "to_char(created_at at time zone 'UTC', 'YYYY-MM-DD')"),
  model: usageOf("usageByModel", "model"),
  node: usageOf("usageByNode", "node"),
  thread: usageOf("usageByThread", "thread_id"),
  assistant: usageOf("usageByAssistant", "assistant_id::text"),
  user: usageOf("usageByUser", "user_id"),
};

// Both sides in one statement, so that both are of the same moment.
const listDriftRows = `/* listDrift */
select p.period_id, p.spent, p.reserved, coalesce(sum(e.spent), 0)::bigint as entries_spent,
       coalesce(sum(e.reserved), 0)::bigint as entries_reserved
  from holdfast.budget_periods p left join holdfast.budget_entries e using (period_id)
 group by p.period_id having p.spent <> coalesce(sum(e.spent), 0) or p.reserved <> coalesce(sum(e.reserved), 0)
 order by p.period_id limit 100`;

const countOverdueRow = `/* countOverdue */
select (count(*) filter (where expires_at < now() - interval '1 min'))::int as overdue, count(*)::int as open
  from holdfast.model_calls where state in ('held', 'sent')`;

const countExcessRow = `/* countExcess */
select count(*)::int as periods, coalesce(sum(excess), 0)::bigint as excess from holdfast.budget_periods where excess > 0`;

/** Undefined: there is one of that place already. */
export async function insertBudget(
  on: Queryable,
  scope: Scope,
  budget: BudgetPlace & { readonly budget_id: string; readonly max: number },
): Promise<BudgetRow | undefined> {
  const { budget_id: id, scope: kind, scope_id: whose, unit, period, max } = budget;
  const [row] = await on.query<BudgetRow>(insertBudgetRow, [
    id,
    scope.tenantId,
    kind,
    whose,
    unit,
    period,
    max,
  ]);
  return row;
}

/** Its running periods have the limit with their next call. */
export async function updateBudget(
  on: Queryable,
  scope: Scope,
  id: string,
  max: number,
): Promise<BudgetRow | undefined> {
  const [row] = await on.query<BudgetRow>(updateBudgetRow, [scope.tenantId, id, max]);
  return row;
}

export async function retireBudget(on: Queryable, scope: Scope, id: string): Promise<boolean> {
  return (await on.query(retireBudgetRow, [scope.tenantId, id])).length > 0;
}

export async function findBudget(on: Queryable, scope: Scope, id: string): Promise<BudgetRow | undefined> {
  const [row] = await on.query<BudgetRow>(findBudgetRow, [scope.tenantId, id]);
  return row;
}

export async function listBudgets(
  on: Queryable,
  scope: Scope,
  page: { scope?: string | undefined; scopeId?: string | undefined; limit: number; offset: number },
): Promise<BudgetRow[]> {
  const { scope: kind = null, scopeId = null, limit, offset } = page;
  return on.query<BudgetRow>(listBudgetRows, [scope.tenantId, kind, scopeId, limit, offset]);
}

/** Newest first, of each budget up to `limit`. @param isRunning only those that are not over */
export async function listPeriods(
  on: Queryable,
  budgetIds: readonly string[],
  { isRunning, limit }: { isRunning: boolean; limit: number },
): Promise<PeriodRow[]> {
  return on.query<PeriodRow>(listPeriodRows, [budgetIds, isRunning, limit]);
}

/** Whether anything is limited at all. */
export async function hasBudget(on: Queryable, scope: Scope): Promise<boolean> {
  const [row] = await on.query<{ has: boolean }>(hasBudgetRow, [scope.tenantId]);
  return row?.has ?? false;
}

export async function usageBy(
  on: Queryable,
  scope: Scope,
  asked: { by: UsageGroup; from: Date; to: Date; threadId?: string | undefined; limit: number },
): Promise<UsageRow[]> {
  const { by, from, to, threadId = null, limit } = asked;
  return on.query<UsageRow>(usageRows[by], [scope.tenantId, from, to, threadId, limit]);
}

export interface Reconciliation {
  /** Periods whose counters are not the sum of their entries. */
  readonly drift: readonly { period_id: number; spent: number; reserved: number }[];
  readonly open: number;
  /** Open calls that should have been closed a minute ago. */
  readonly overdue: number;
  readonly excess: { readonly periods: number; readonly excess: number };
}

/** Whether the books are right. */
export async function reconcile(on: Queryable): Promise<Reconciliation> {
  const drift = await on.query<Reconciliation["drift"][number]>(listDriftRows);
  const [calls] = await on.query<{ overdue: number; open: number }>(countOverdueRow);
  const [excess] = await on.query<Reconciliation["excess"]>(countExcessRow);
  return {
    drift,
    open: calls?.open ?? 0,
    overdue: calls?.overdue ?? 0,
    excess: excess ?? { periods: 0, excess: 0 },
  };
}

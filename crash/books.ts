// Whether the books are right, held against what the provider would bill: call by call, and in sum.
import { turnsOf } from "../server/models/offline/chat.ts";
import type { ModelCall } from "../server/models/offline/server.ts";
import { countChatTokens, countTokens } from "../server/models/tokens.ts";
import { reconcile } from "../server/storage/budgets.ts";
import type { Database } from "../server/storage/database.ts";
import type { Violation } from "./report.ts";

/** In every prompt of this fault, and in no other's. */
export const QUESTION = "What does it cost?";

interface CallRow {
  readonly call_id: string;
  readonly state: string;
  readonly input: number | null;
  readonly output: number | null;
  readonly is_estimated: boolean;
  /** What it is charged in the tokens of its thread, and what it could cost at most. */
  readonly charged: number;
  readonly cap: number;
}

const listCalls = `select c.call_id, c.state, c.input_tokens as input, c.output_tokens as output, c.is_estimated,
    sum(e.spent)::int as charged, sum(e.reserved) filter (where e.kind = 'reserved')::int as cap
  from holdfast.model_calls c join holdfast.budget_entries e using (call_id)
  join holdfast.budget_periods p using (period_id) join holdfast.budgets b using (budget_id)
 where b.scope = 'thread' group by c.call_id`;

interface PeriodRow {
  readonly scope: string;
  readonly unit: string;
  readonly scope_id: string;
  readonly max: number;
  readonly spent: number;
  readonly reserved: number;
  readonly excess: number;
}

const listPeriods = `select b.scope, b.unit, p.scope_id, p.max, p.spent, p.reserved, p.excess
  from holdfast.budget_periods p join holdfast.budgets b using (budget_id)`;

interface Bill {
  readonly id: string;
  readonly call: ModelCall;
  readonly input: number;
  readonly output: number;
}

export async function judgeBooks(
  database: Database,
  billed: ReadonlyMap<string, ModelCall>,
): Promise<Violation[]> {
  const rows = new Map((await database.query<CallRow>(listCalls)).map((row) => [row.call_id, row]));
  const ours = [...billed].filter(([, { body }]) => JSON.stringify(body.messages).includes(QUESTION));
  const bills = await Promise.all(ours.map(([id, call]) => billOf(id, call)));
  const found: Violation[] = [];
  const say = (law: string, what: string): void => void found.push({ law, what });
  for (const { id, call, input, output } of bills) {
    const row = rows.get(id);
    if (!row || row.state === "released" || row.state === "held") {
      say("what the provider billed is charged", `call ${id} is ${row?.state ?? "unknown"}`);
      continue;
    }
    if (row.charged < input + output) say("no call is charged less than it was billed", `call ${id}`);
    if (input + output > row.cap) say("no call costs more than was reserved for it", `call ${id}`);
    const isExact = row.state === "settled" && !row.is_estimated && !call.aborted;
    if (isExact && (row.input !== input || row.output !== output))
      say("a call is settled with what was billed", `call ${id}: ${row.input} + ${row.output}`);
  }
  const periods = await database.query<PeriodRow>(listPeriods);
  for (const { scope, unit, scope_id: whose, max, spent, reserved, excess } of periods) {
    const name = `${scope} ${whose} in ${unit}`;
    if (spent > max || excess > 0) say("no budget is overspent", `${name}: ${spent} of ${max}`);
    if (reserved > 0) say("no reservation is left over", `${name}: ${reserved}`);
  }
  const { drift } = await reconcile(database);
  for (const { period_id: id } of drift) say("counters are the sum of the ledger", `period ${id}`);
  const sum = bills.reduce((total, { input, output }) => total + input + output, 0);
  const charged = [...rows.values()].reduce((total, row) => total + row.charged, 0);
  if (sum > charged) say("all that was billed was charged", `${sum} billed, ${charged} charged`);
  if (bills.length === 0) say("somebody was asked", "the provider got no call");
  return found;
}

async function billOf(id: string, call: ModelCall): Promise<Bill> {
  const input = await countChatTokens(turnsOf(call.body), call.model);
  return { id, call, input, output: await countTokens(call.said, call.model) };
}

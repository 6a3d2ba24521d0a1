// Rows of holdfast.model_calls: every request to a provider, from before it is sent until what it cost is known. What they
// do to budgets is in functions of the database (migration 0017), so that a call is counted everywhere or nowhere.
import type { Queryable } from "./database.ts";
import { isOwn } from "./fence.ts";
import type { Owner } from "./fence.ts";
import type { Scope } from "./scope.ts";

/** On whose behalf a call is made. */
export interface Payer {
  readonly owner: Owner;
  readonly assistantId: string;
  /** The pseudonym of who asked for the run; undefined without auth. */
  readonly userId: string | undefined;
}

/** What a call costs at most, in tokens and in millionths of a dollar; null: the model has no price. */
export interface WorstCase {
  readonly tokens: number;
  readonly microUsd: number | null;
}

export interface NewCall {
  readonly callId: string;
  readonly payer: Payer;
  readonly model: string;
  readonly node: string | undefined;
}

/** What a call was. */
export interface Usage {
  readonly input: number;
  /** Part of `input`. */
  readonly cached: number;
  readonly output: number;
  readonly microUsd: number | null;
  /** Counted by us, because the provider did not say. */
  readonly isEstimated: boolean;
}

export interface Shortage {
  readonly budget_id: string;
  readonly scope: string;
  readonly unit: "tokens" | "micro_usd";
  readonly period: string;
  readonly max: number;
  readonly free: number;
  readonly asked: number | null;
  /** Null: never. */
  readonly ends_at: Date | null;
}

export type Reservation =
  | { readonly outcome: "reserved" }
  /** The run is not this worker's any more. */
  | { readonly outcome: "lost" }
  /** `unpriced`: the budget counts money, and the model has no price. */
  | ({ readonly outcome: "short" | "unpriced" } & Shortage);

const reserveCallRow = `/* reserveCall */
select * from holdfast.reserve_call($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)`;

const sendCallRow = `/* sendCall */
update holdfast.model_calls c set state = 'sent', node = $2
 where c.call_id = $1 and c.state in ('held', 'sent') and c.expires_at > clock_timestamp()
   and exists (select 1 from holdfast.runs r
     where r.run_id = c.run_id and ${isOwn("r", { attempt: "c.attempt", worker: "$3" })})
returning 1 as n`;

const closeCallRow = `/* closeCall */
select holdfast.close_call($1, $2, $3, $4, $5, $6, $7, $8) as is_closed`;

/** What is noted of a call that fell under no budget. */
export interface Note {
  readonly scope: Scope;
  readonly call: NewCall;
  readonly usage: Usage;
}

/** An insert of what `packedNotes` made of notes, given as this parameter. It needs no lease: what was billed was billed. */
export const insertNotes = (parameter: string): string => `
insert into holdfast.model_calls (call_id, tenant_id, run_id, attempt, thread_id, assistant_id, user_id, node, model, state,
  input_tokens, cached_tokens, output_tokens, micro_usd, is_estimated, ended_at, expires_at)
select c.call_id, c.tenant_id, c.run_id, c.attempt, c.thread_id, c.assistant_id, c.user_id, c.node, c.model, 'settled',
    c.input, c.cached, c.output, c.micro_usd, c.is_estimated, now(), now()
  from json_to_recordset(${parameter}::json) as c (call_id uuid, tenant_id text, run_id uuid, attempt int, thread_id text,
    assistant_id uuid, user_id text, node text, model text, input bigint, cached bigint, output bigint, micro_usd bigint,
    is_estimated boolean)
on conflict (call_id) do nothing`;

const insertCallRows = `/* insertCalls */ ${insertNotes("$1")}`;

const expireCallRows = `/* expireCalls */ select holdfast.expire_calls($1) as closed`;

/** Reserves what the call costs at most in each budget it falls under. Asked twice, it is reserved once. */
export async function reserveCall(
  on: Queryable,
  scope: Scope,
  call: NewCall & { readonly state: "held" | "sent"; readonly ttlMs: number; readonly worst: WorstCase },
): Promise<Reservation> {
  const { payer, worst } = call;
  const [row = { outcome: "lost" }] = await on.query<Reservation>(reserveCallRow, [
    call.callId,
    scope.tenantId,
    payer.owner.runId,
    payer.owner.workerId,
    payer.owner.attempt,
    payer.owner.threadId,
    payer.assistantId,
    payer.userId ?? null,
    call.node ?? null,
    call.model,
    call.state,
    call.ttlMs,
    worst.tokens,
    worst.microUsd,
  ]);
  return row;
}

/** Says that a held call is about to be sent. False: its time is over, or the run is somebody else's; it must not be. */
export async function sendCall(
  on: Queryable,
  callId: string,
  { node, workerId }: { node: string | undefined; workerId: string },
): Promise<boolean> {
  return (await on.query(sendCallRow, [callId, node ?? null, workerId])).length > 0;
}

/** Charges a call at its worst case: nobody will hear what it cost. */
export function presumeCall(on: Queryable, callId: string): Promise<boolean> {
  return close(on, [callId, ["sent"], "presumed", null, null, null, null, true]);
}

/** Writes what a call cost, also for one that was presumed meanwhile. False: it was closed already. */
export function settleCall(on: Queryable, callId: string, usage: Usage): Promise<boolean> {
  return close(on, [callId, ["sent", "presumed"], "settled", ...valuesOf(usage)]);
}

/** Gives back what was reserved for a call that was never sent, or that cost nothing. */
export function releaseCall(on: Queryable, callId: string): Promise<boolean> {
  return close(on, [callId, ["held", "sent", "presumed"], "released", 0, 0, 0, 0, false]);
}

async function close(on: Queryable, values: readonly unknown[]): Promise<boolean> {
  const [row] = await on.query<{ is_closed: boolean }>(closeCallRow, values);
  return row?.is_closed ?? false;
}

export const insertCalls = (on: Queryable, notes: readonly Note[]): Promise<unknown> =>
  on.query(insertCallRows, [packedNotes(notes)]);

/** Notes as a parameter of `insertNotes`. */
export const packedNotes = (notes: readonly Note[]): string =>
  JSON.stringify(
    notes.map(({ scope, call: { callId, payer, node, model }, usage }) => ({
      call_id: callId,
      tenant_id: scope.tenantId,
      run_id: payer.owner.runId,
      attempt: payer.owner.attempt,
      thread_id: payer.owner.threadId,
      assistant_id: payer.assistantId,
      user_id: payer.userId ?? null,
      node: node ?? null,
      model,
      input: usage.input,
      cached: usage.cached,
      output: usage.output,
      micro_usd: usage.microUsd,
      is_estimated: usage.isEstimated,
    })),
  );

const valuesOf = ({ input, cached, output, microUsd, isEstimated }: Usage): readonly unknown[] => [
  input,
  cached,
  output,
  microUsd,
  isEstimated,
];

/** Closes calls whose time is over or whose attempt is gone; how many. */
export async function expireCalls(on: Queryable, limit: number): Promise<number> {
  const [row] = await on.query<{ closed: number }>(expireCallRows, [limit]);
  return row?.closed ?? 0;
}

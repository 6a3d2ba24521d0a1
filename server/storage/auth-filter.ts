// Which rows a caller may touch: those whose metadata hold what a handler of authorisation asked for. It is one JSON
// document that is contained or not, so that an index of metadata answers it, and it is part of the statement, so that
// pages are full and totals exact.
import { AuthInvalid } from "../errors.ts";
import { isStorable } from "../privacy/storable.ts";
import type { Queryable } from "./database.ts";

declare const isFilter: unique symbol;

/** JSON text of what a row's metadata must contain. Where there is none, there is no bound. */
export type AuthFilter = string & { readonly [isFilter]: true };

type Fields = Readonly<Record<string, unknown>>;

/**
 * The filter that a handler returned: `{key: value}`, `{key: {$eq: value}}`, `{key: {$contains: value or values}}`.
 * Containment of a scalar is equality, also of an empty text; that of a list asks for each of its values.
 * @throws AuthInvalid for anything else: what is not understood must show no rows, not all of them
 */
export function filterOf(conditions: object): AuthFilter {
  const parts = Object.entries(conditions).map(([key, wanted]) => [checked(key), partOf(key, wanted)]);
  return JSON.stringify(Object.fromEntries(parts)) as AuthFilter;
}

function partOf(key: string, wanted: unknown): unknown {
  if (typeof wanted !== "object" || wanted === null) return scalar(key, wanted);
  const entries = Object.entries(wanted);
  const [[operator, operand] = []] = entries;
  if (!Array.isArray(wanted) && entries.length === 1) {
    if (operator === "$eq") return scalar(key, operand);
    if (operator === "$contains") return [operand].flat().map((one) => scalar(key, one));
  }
  throw new AuthInvalid(
    `the filter of "${key}" is not a value, {$eq: value} or {$contains: value or values}`,
  );
}

function scalar(key: string, value: unknown): string | number | boolean | null {
  if (value === null || typeof value === "boolean" || Number.isFinite(value))
    return value as number | boolean | null;
  if (typeof value === "string") return checked(value);
  throw new AuthInvalid(
    `the filter of "${key}" compares with ${typeof value}; use a text, a number or a flag`,
  );
}

function checked(text: string): string {
  if (isStorable(text)) return text;
  throw new AuthInvalid("a filter holds a NUL character or half a surrogate pair");
}

const threadVisible = `/* isThreadVisible */
select 1 as one from holdfast.threads where thread_id = $1 and metadata @> $2::jsonb`;

const threadsVisible = `/* listVisibleThreads */
select thread_id from holdfast.threads where thread_id = any ($1::text[]) and metadata @> $2::jsonb`;

const assistantVisible = `/* isAssistantVisible */
select 1 as one from holdfast.assistants where assistant_id = $1 and metadata @> $2::jsonb`;

const cronVisible = `/* isCronVisible */
select 1 as one from holdfast.crons where cron_id = $1 and metadata @> $2::jsonb`;

const isOne = async (on: Queryable, statement: string, id: string, filter: AuthFilter): Promise<boolean> =>
  (await on.query(statement, [id, filter])).length > 0;

/** False also when there is no such row, as in the following. */
export const isThreadVisible = (on: Queryable, threadId: string, filter: AuthFilter): Promise<boolean> =>
  isOne(on, threadVisible, threadId, filter);

export const isAssistantVisible = (on: Queryable, id: string, filter: AuthFilter): Promise<boolean> =>
  isOne(on, assistantVisible, id, filter);

export const isCronVisible = (on: Queryable, cronId: string, filter: AuthFilter): Promise<boolean> =>
  isOne(on, cronVisible, cronId, filter);

/** Those of the threads that exist and may be touched. */
export async function listVisibleThreads(
  on: Queryable,
  threadIds: readonly string[],
  filter: AuthFilter,
): Promise<string[]> {
  const rows = await on.query<{ thread_id: string }>(threadsVisible, [threadIds, filter]);
  return rows.map((row) => row.thread_id);
}

/** What is kept of metadata: an object; none of anything else. */
export const metadataOf = (value: unknown): Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? { ...value } : {};

// Whether a database is sealed. It is from the moment on at which it refuses what is not: then its columns have a check
// each, and no server that has no keys can write plain text beside what is sealed.
import { ConfigInvalid } from "../../errors.ts";
import { LEAST_BYTES } from "../../privacy/seal.ts";
import type { Database, Queryable } from "../database.ts";
import { countByKek, sampleByKek } from "./data-keys.ts";
import type { DataKeyRow, KekUse } from "./data-keys.ts";
import { SEALED } from "./sealed.ts";
import type { SealedName } from "./sealed.ts";
import { boundTo } from "./seals.ts";

/** `begun`: some of it is sealed, and more is to be. */
export type SealingState = "off" | "begun" | "on";

const findSealing = `/* findSealing */
select exists (select from holdfast.data_keys) as has_keys,
       exists (select from pg_constraint where conname = 'threads_sealed' and conrelid = 'holdfast.threads'::regclass) as is_checked`;

const findContent = `/* findContent */
select exists (select from holdfast.threads) or exists (select from holdfast.crons) or exists (select from holdfast.webhooks)
    or exists (select from holdfast.store_items) or exists (select from holdfast.run_events)
    or exists (select from public.checkpoints) as has_content`;

const lockSealing = `/* lockSealing */ select pg_advisory_xact_lock(hashtextextended('holdfast.sealing', 0))`;

const listLive = `/* listLiveInstances */
select worker_id from holdfast.instances where beat_at > now() - interval '15 s'`;

export async function sealingOf(on: Queryable): Promise<SealingState> {
  const [row] = await on.query<{ has_keys: boolean; is_checked: boolean }>(findSealing);
  if (row?.is_checked) return "on";
  return row?.has_keys ? "begun" : "off";
}

/**
 * For a server that starts: a database without content is sealed from now on if there are keys.
 * @returns whether it is sealed
 * @throws ConfigInvalid when the keys do not fit to what is stored
 */
export async function settleSealing(database: Database): Promise<boolean> {
  const state = await sealingOf(database);
  if (!database.seals.isOn) {
    if (state === "off") return false;
    throw new ConfigInvalid(
      "What this database holds is sealed: set HOLDFAST_KEYS_FILE to the file with its keys.",
    );
  }
  if (state === "off" && (await beginSealed(database))) return true;
  const settled = state === "on" ? state : await sealingOf(database);
  if (settled !== "on")
    throw new ConfigInvalid(
      `HOLDFAST_KEYS is set, and this database holds what is not sealed: stop all servers and run holdfast keys seal${settled === "off" ? ", or unset it" : " to its end"}.`,
    );
  await requireKeks(database);
  return true;
}

/** @throws ConfigInvalid when a key that wraps stored keys is not in the ring */
export async function requireKeks(on: Queryable): Promise<void> {
  const missing = await missingKeks(on);
  if (missing.length === 0) return;
  const which = missing.map(({ kek_id: kek, keys }) => `${kek} (${keys} data keys)`).join(", ");
  throw new ConfigInvalid(
    `HOLDFAST_KEYS lacks keys with which stored data is sealed, or holds others under their names: ${which}.`,
  );
}

/** Keys that wrap stored keys and are not in the ring. One that does not open what its name wraps is another key. */
export async function missingKeks(on: Queryable): Promise<KekUse[]> {
  const closed = new Set<string>();
  for (const row of await sampleByKek(on)) if (!opens(on, row)) closed.add(row.kek_id);
  return (await countByKek(on)).filter(({ kek_id: kek }) => closed.has(kek));
}

function opens(on: Queryable, row: DataKeyRow): boolean {
  try {
    on.seals.ring.unwrap(row.kek_id, row.wrapped, boundTo(row));
    return true;
  } catch {
    return false;
  }
}

async function beginSealed(database: Database): Promise<boolean> {
  return database.transaction(async (transaction) => {
    await transaction.query(lockSealing);
    if ((await sealingOf(transaction)) !== "off") return false;
    const [row] = await transaction.query<{ has_content: boolean }>(findContent);
    if (row?.has_content) return false;
    await addChecks(transaction);
    return true;
  });
}

/** From now on the database refuses what is not sealed. */
export async function addChecks(transaction: Queryable): Promise<void> {
  await transaction.query(
    "alter table holdfast.threads add constraint threads_sealed check (data_key_id is not null)",
  );
  for (const [name, { schema, form, ...rest }] of Object.entries(SEALED)) {
    const [table = "", column = ""] = name.split(".");
    const blank = "blank" in rest ? ` or ${column}::text = '${rest.blank}'` : "";
    await transaction.query(
      `alter table ${schema}.${table} add constraint ${checkOf(name as SealedName)} check (${testOf(column, form)}${blank})`,
    );
  }
}

/** The name of the check of a column. */
const checkOf = (name: SealedName): string => `${name.replace(".", "_")}_sealed`;

function testOf(column: string, form: "bytes" | "text" | "json"): string {
  if (form === "bytes") return `octet_length(${column}) >= ${LEAST_BYTES} and get_byte(${column}, 0) = 1`;
  return form === "text" ? `${column} like '~A%'` : `${column}::text like '"~A%'`;
}

/** How many servers are alive. */
export async function countLive(on: Queryable): Promise<number> {
  return (await on.query(listLive)).length;
}

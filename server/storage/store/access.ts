// Whether a caller may touch one item of the store. What a handler of authorisation asks for is looked for in the item's
// value, its namespace and its key taken as one object, as the official servers do.
import type { AuthFilter } from "../auth-filter.ts";
import type { Database, Queryable } from "../database.ts";
import { meetsAll } from "../json-match.ts";
import { holding } from "./filter.ts";
import { placeOf } from "./names.ts";
import { findItems, writeItems } from "./store.ts";
import type { StoreKey, StoreWrite } from "./store.ts";

const lockItem = `/* lockStorePlace */
select pg_advisory_xact_lock(hashtextextended(concat_ws('/', 'holdfast.store', $1::text, $2::text), 0))`;

interface Judgement {
  /** Undefined: there is no such item. */
  readonly isVisible: boolean | undefined;
  readonly willBe: boolean;
}

/** True also for an item that is not there. */
export async function mayRead(on: Queryable, item: StoreKey, filter: AuthFilter): Promise<boolean> {
  return (await judge(on, { ...item, value: null }, filter)).isVisible ?? true;
}

/**
 * Writes or deletes an item if the caller may.
 * @returns "foreign" when what is there is not the caller's, "outside" when what would be there is not; nothing is then done
 */
export function writeIfAllowed(
  database: Database,
  write: StoreWrite,
  filter: AuthFilter,
): Promise<"written" | "foreign" | "outside"> {
  return database.transaction(async (transaction) => {
    const { path, key } = placeOf(write.namespace, write.key);
    // Two callers that write the same new item come one after the other, and the second sees whose it is.
    await transaction.query(lockItem, [path, key]);
    const { isVisible, willBe } = await judge(transaction, write, filter);
    if (isVisible === false) return "foreign";
    const isDone = write.value === null ? isVisible === true || willBe : willBe;
    if (!isDone) return "outside";
    await writeItems(transaction, [write]);
    return "written";
  });
}

async function judge(
  on: Queryable,
  { namespace, key, value }: StoreKey & { value: object | null },
  filter: AuthFilter,
): Promise<Judgement> {
  const [found] = await findItems(on, [{ namespace, key }], false);
  const isHeld = (item: object): boolean =>
    meetsAll({ namespace, key, value: { ...item } }, [holding(filter)]);
  return { isVisible: found ? isHeld(found.value) : undefined, willBe: isHeld(value ?? {}) };
}

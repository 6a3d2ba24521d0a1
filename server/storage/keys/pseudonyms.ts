// Pseudonyms of people: the same identity has the same one as long as the database lives, and none can be guessed without
// the key, which lies beside the data and not in it.
import { createHmac } from "node:crypto";
import type { Queryable } from "../database.ts";

const findKeyRow = `/* findPseudonymKey */ select key from holdfast.pseudonym_keys`;

const LENGTH = 32;
const keys = new WeakMap<object, Promise<Buffer>>();

/** 32 hexadecimal digits for an identity, an address, or whatever else names somebody. */
export async function pseudonymOf(on: Queryable, name: string): Promise<string> {
  // A transaction has the keys of its database too, so that one look is enough for both.
  const key = await (keys.get(on.seals) ?? remember(on));
  return createHmac("sha256", key).update(name).digest("hex").slice(0, LENGTH);
}

function remember(on: Queryable): Promise<Buffer> {
  const key = on.query<{ key: Buffer }>(findKeyRow).then(([row]) => {
    if (!row) throw new Error("holdfast.pseudonym_keys is empty: restore its row from a backup.");
    return row.key;
  });
  keys.set(on.seals, key);
  key.catch(() => keys.delete(on.seals));
  return key;
}

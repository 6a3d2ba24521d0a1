// An item is never said to be written under a key that was shredded meanwhile.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import type { Queryable } from "../../server/storage/database.ts";
import { findItems, writeItems } from "../../server/storage/store/store.ts";
import { testDatabase } from "../support/database.ts";
import { TEST_KEYS } from "../support/keys.ts";

test("who writes while a namespace is shredded tries again, and is told if it is shredded each time", async () => {
  const scratch = await testDatabase(TEST_KEYS);
  const { database } = scratch;
  const item = { namespace: [randomUUID()], key: "one", value: { of: "tea" }, ttlMinutes: null };
  let left = 1;
  const shredding: Queryable = {
    seals: database.seals,
    query: async (text, values) => {
      if (text.startsWith("/* writeStoreItems */") && left > 0) {
        left -= 1;
        await database.query("delete from holdfast.data_keys where path is not null");
      }
      return database.query(text, values);
    },
  };
  expect(await writeItems(shredding, [item])).toBe(true);
  expect((await findItems(database, [item], false))[0]?.value).toEqual(item.value);
  left = Infinity;
  await expect(writeItems(shredding, [{ ...item, key: "two" }])).rejects.toThrow(/shredded at the same time/);
  expect(await findItems(database, [{ ...item, key: "two" }], false)).toEqual([null]);
  await scratch.close();
});

// A shredded key is gone from the file of its table too, from which backups are made.
import { expect, test } from "vitest";
import { shredNamespace } from "../../server/storage/keys/shred.ts";
import { found } from "../support/found.ts";
import { TEST_KEYS } from "../support/keys.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_KEYS: TEST_KEYS });

test("a key is taken out of its file once nobody can still see it", async () => {
  const { database } = held.scratch;
  await held.server.client.store.putItem(["users"], "ada", { text: "x" });
  const keys = "select wrapped from holdfast.data_keys where path is not null";
  const rows = await database.query<{ wrapped: Buffer }>(keys);
  const { wrapped } = found(rows[0], "key");
  const isInFile = async (): Promise<unknown> => {
    await database.query("checkpoint");
    const looked = await database.query<{ it_is: boolean }>(
      "select position($1::bytea in pg_read_binary_file(pg_relation_filepath('holdfast.data_keys'))) > 0 as it_is",
      [wrapped],
    );
    return looked[0]?.it_is;
  };
  const looker = await database.session();
  await looker.query("begin isolation level repeatable read");
  await looker.query("select count(*) from holdfast.data_keys");
  const shredding = shredNamespace(database, ["users"], "default");
  await until(async () => (await database.query(keys)).length === 0, "the key to go");
  expect(await isInFile()).toBe(true);
  await looker.query("commit");
  await looker.close();
  expect(await shredding).toEqual({ keys: 1 });
  expect(await isInFile()).toBe(false);
});

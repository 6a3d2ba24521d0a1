// What stands behind a token is stored before the token is, whoever writes it, and known to all who ask at once.
import { createSecretKey, randomBytes, randomUUID } from "node:crypto";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { Reveal } from "../../server/runs/reveal.ts";
import { guardThreadText } from "../../server/runs/vault.ts";
import type { Database } from "../../server/storage/database.ts";
import { insertThread } from "../../server/storage/threads.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { TEST_KEYS } from "../support/keys.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase(TEST_KEYS);
});
afterAll(() => scratch.close());

const privacy = openPrivacy({ mode: "tokenise", graphs: {}, names: false, rules: [] });
const entries = (threadId: string): Promise<unknown[]> =>
  scratch.database.query("select 1 from holdfast.vault_entries where thread_id = $1", [threadId]);

async function newText(
  database: Database,
  more: object = {},
): Promise<ReturnType<typeof guardThreadText> & { threadId: string }> {
  const threadId = randomUUID();
  await insertThread(scratch.database, threadId, {});
  const key = await scratch.database.seals.ofLocked(scratch.database, threadId);
  const where = { threadId, key, identity: "ada", ...more };
  return { ...guardThreadText({ privacy, database }, "any", where), threadId };
}

test("who writes while something is being kept waits for it too", async () => {
  const gate = Promise.withResolvers<void>();
  const slow: Database = {
    ...scratch.database,
    query: async (text, values) => {
      await gate.promise;
      return scratch.database.query(text, values);
    },
  };
  const { guard, keep, threadId } = await newText(slow);
  guard.text("a@b.org");
  const first = keep();
  const second = keep(); // nothing is new, and nothing is stored yet
  expect([first, second]).toEqual([expect.any(Promise), expect.any(Promise)]);
  guard.text("c@d.org");
  const third = keep();
  gate.resolve();
  await second;
  expect(await entries(threadId)).not.toEqual([]);
  await third;
  expect(await entries(threadId)).toHaveLength(2);
  await first;
  expect(keep()).toBeUndefined();
});

test("what could not be kept fails whoever writes afterwards", async () => {
  const broken: Database = { ...scratch.database, query: () => Promise.reject(new Error("refused")) };
  const { guard, keep } = await newText(broken);
  guard.text("a@b.org");
  await expect(keep()).rejects.toThrow("refused");
  await expect(keep()).rejects.toThrow("refused");
});

test("nothing is kept for a thread that has another key by now", async () => {
  const key = { id: randomUUID(), secret: createSecretKey(randomBytes(32)) };
  const { guard, keep, threadId } = await newText(scratch.database, { key });
  guard.text("a@b.org");
  await keep();
  expect(await entries(threadId)).toEqual([]);
});

test("many who ask at once are all told what a token stands for", async () => {
  const { guard, keep, threadId } = await newText(scratch.database);
  const text = guard.text("Write to a@b.org.");
  await keep();
  const reveal = new Reveal(scratch.database, { identity: undefined, permissions: [], threadId });
  const told = await Promise.all([1, 2, 3, 4].map(() => reveal.text(text)));
  expect(new Set(told)).toEqual(new Set(["Write to a@b.org."]));
});

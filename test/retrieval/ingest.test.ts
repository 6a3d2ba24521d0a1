import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Progress } from "../../server/retrieval/ingest.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { contentsOf, find, index, makeFolder } from "./folder.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await testDatabase();
});
afterAll(() => db.close());

const records = (count: number, word: string): string =>
  Array.from({ length: count }, (_, at) =>
    JSON.stringify({ _id: `r${at}`, text: `${word} number ${at}` }),
  ).join("\n");

test("what has not changed is skipped, what has changed is replaced, what is gone is removed", async () => {
  const folder = await makeFolder({ "a.md": "# A\n\namber", "sub/b.txt": "birch", "c.txt": "cedar" });
  expect(await index(db.database, "life", [folder.path])).toMatchObject({
    indexed: 3,
    unchanged: 0,
    removed: 0,
  });
  expect(await index(db.database, "life", [folder.path])).toMatchObject({
    indexed: 0,
    unchanged: 3,
    chunks: 0,
  });

  await folder.write({ "sub/b.txt": "beech" });
  await folder.delete("c.txt");
  expect(await index(db.database, "life", [folder.path])).toMatchObject({
    indexed: 1,
    unchanged: 1,
    removed: 1,
  });
  expect(await find(db.database, "life", "birch cedar")).toEqual([]);
  expect(await find(db.database, "life", "beech")).toEqual(["sub/b.txt"]);

  const fresh = await index(db.database, "life-again", [folder.path]);
  expect(fresh.indexed).toBe(2);
  expect(await contentsOf(db.database, "life")).toBe(await contentsOf(db.database, "life-again"));
});

test("a line that left its file is removed, unless the file could not be read to its end", async () => {
  const folder = await makeFolder({ "r.jsonl": records(700, "amber") });
  await index(db.database, "records", [folder.path]);
  await folder.write({ "r.jsonl": `${records(10, "amber")}\n{broken` });
  expect(await index(db.database, "records", [folder.path])).toMatchObject({ unchanged: 10, removed: 0 });
  await folder.write({ "r.jsonl": records(10, "amber") });
  const file = join(folder.path, "r.jsonl");
  expect(await index(db.database, "records", [file])).toMatchObject({ unchanged: 10, removed: 690 });
  await folder.delete("r.jsonl");
  expect(await index(db.database, "records", [folder.path])).toMatchObject({ removed: 10 });
  expect(await find(db.database, "records", "amber")).toEqual([]);
});

test("indexing one folder or one file removes nothing that was read elsewhere", async () => {
  const left = await makeFolder({ "README.md": "amber left", "old.txt": "old" });
  const right = await makeFolder({ "README.md": "amber right" });
  await index(db.database, "roots", [left.path]);
  await index(db.database, "roots", [right.path]);
  await left.delete("old.txt");
  const single = await index(db.database, "roots", [join(left.path, "README.md")]);
  expect(single).toMatchObject({ unchanged: 1, indexed: 0, removed: 0 });
  expect(await index(db.database, "roots", [right.path])).toMatchObject({ removed: 0 });
  expect(await find(db.database, "roots", "amber")).toEqual(["README.md", "README.md"]);
  expect(await find(db.database, "roots", "old")).toEqual(["old.txt"]);
  expect(await index(db.database, "roots", [left.path])).toMatchObject({ removed: 1 });
});

test("prune: false keeps what is gone", async () => {
  const folder = await makeFolder({ "a.txt": "amber", "b.txt": "birch" });
  await index(db.database, "kept", [folder.path]);
  await folder.delete("b.txt");
  expect(await index(db.database, "kept", [folder.path], { prune: false })).toMatchObject({ removed: 0 });
  expect(await find(db.database, "kept", "birch")).toEqual(["b.txt"]);
});

test("a file that cannot be read for now keeps its document", async () => {
  const folder = await makeFolder({ "a.txt": "amber" });
  await index(db.database, "hurt", [folder.path]);
  await folder.write({ "a.txt": "\0" });
  expect(await index(db.database, "hurt", [folder.path])).toMatchObject({
    removed: 0,
    failed: [{ source: "a.txt" }],
  });
  expect(await find(db.database, "hurt", "amber")).toEqual(["a.txt"]);
});

test("dot-files, node_modules and loops of links are not walked, and a file is indexed once", async () => {
  const folder = await makeFolder({
    "a.txt": "amber",
    ".hidden/b.txt": "birch",
    ".c.txt": "cedar",
    "node_modules/p/README.md": "delta",
    "%_'\".txt": "ember",
  });
  await symlink(folder.path, join(folder.path, "loop"));
  await symlink("a.txt", join(folder.path, "link.txt"));
  const report = await index(db.database, "walk", [folder.path, join(folder.path, "a.txt"), folder.path]);
  expect(report).toMatchObject({ indexed: 3, failed: [] });
  expect(await find(db.database, "walk", "birch cedar delta")).toEqual([]);
  expect((await find(db.database, "walk", "amber")).toSorted()).toEqual(["a.txt", "link.txt"]);
});

test("a run that was interrupted is finished by the next one, and the result is the same", async () => {
  const folder = await makeFolder({ "a.txt": "amber", "r.jsonl": records(1800, "birch"), "z.md": "# Zoo" });
  await index(db.database, "whole", [folder.path]);

  const stop = new AbortController();
  const onProgress = ({ done }: Progress): void => {
    if (done === 700) stop.abort();
  };
  const cut = index(db.database, "cut", [folder.path], { onProgress, signal: stop.signal });
  await expect(cut).rejects.toThrow(/abort/i);
  const rest = await index(db.database, "cut", [folder.path]);
  expect(rest.unchanged).toBeGreaterThanOrEqual(500);
  expect(rest.indexed).toBeGreaterThan(0);
  expect(rest.indexed + rest.unchanged).toBe(1802);
  expect(await contentsOf(db.database, "cut")).toBe(await contentsOf(db.database, "whole"));
});

test("two runs over the same folder at once end as one", async () => {
  const folder = await makeFolder({ "r.jsonl": records(600, "amber"), "b.txt": "birch" });
  await index(db.database, "one", [folder.path]);
  await Promise.all([1, 2, 3].map(() => index(db.database, "many", [folder.path])));
  expect(await contentsOf(db.database, "many")).toBe(await contentsOf(db.database, "one"));
});

test("progress counts every document once and ends at its total", async () => {
  const folder = await makeFolder({ "r.jsonl": `${records(3, "amber")}\n{broken`, "b.txt": "birch" });
  const seen: Progress[] = [];
  await index(db.database, "progress", [folder.path], { onProgress: (one) => seen.push(one) });
  expect(seen).toHaveLength(5);
  expect(seen.at(-1)).toMatchObject({ done: 5, total: 5 });
  expect(seen.filter(({ outcome }) => outcome === "failed")).toMatchObject([
    { source: "r.jsonl:4", reason: expect.stringContaining("JSON") },
  ]);
});

import { symlink } from "node:fs/promises";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, expect, test } from "vitest";
import { DocumentUnreadable } from "../../server/errors.ts";
import { unreadable } from "../../server/retrieval/files.ts";
import { readPdf } from "../../server/retrieval/pdf.ts";
import { load } from "../../server/retrieval/load.ts";
import type { LoadedDocument } from "../../server/retrieval/load.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { find, index, makeFolder, pdfOf } from "./folder.ts";

let db: TestDatabase;
beforeAll(async () => {
  db = await testDatabase();
});
afterAll(() => db.close());

async function loadOne(name: string, content: string | Uint8Array): Promise<LoadedDocument> {
  const folder = await makeFolder({ [name]: content });
  const all = await Array.fromAsync(load({ file: join(folder.path, name), source: name }));
  const [document] = all;
  if (!document || "reason" in document) throw new Error(`no document in ${JSON.stringify(all)}`);
  return document;
}

test("markdown is titled by its first heading, not by a comment in its code", async () => {
  const { title, text } = await loadOne("a.md", "\uFEFF```sh\n# install\n```\r\n\r\n# Real title #\r\nText");
  expect(title).toBe("Real title");
  expect(text).toContain("# install\n```\n\n# Real title #\nText");
});

test("html gives its text only, and its title", async () => {
  const { title, text } = await loadOne(
    "a.html",
    `<html><head><title>Fish &amp; chips</title><style>p{color:red}</style><script>alert(1)</script></head>
     <body><h1>Menu</h1><p>Cod &lt;fresh&gt; <a href="https://example.com/x">here</a></p><img src="a.png" alt="photo"></body>`,
  );
  expect(title).toBe("Fish & chips");
  expect(text).toBe("Menu\n\nCod <fresh> here");
});

test("a PDF gives the text of its pages and its title", async () => {
  const { title, text } = await loadOne(
    "a.pdf",
    pdfOf("Harbour guide", "Moor at the pier.", "Mind the tide."),
  );
  expect(title).toBe("Harbour guide");
  expect(text).toBe("Moor at the pier.\n\nMind the tide.");
});

test("a document without a title is called by its file, or by its first line in a PDF", async () => {
  expect(await loadOne("notes.txt", "Hello\nthere")).toMatchObject({ title: "notes.txt" });
  expect(await loadOne("a.pdf", pdfOf("", "Moor at the pier."))).toMatchObject({
    title: "Moor at the pier.",
  });
});

test("a heading of any length is read in one pass", async () => {
  const spaces = " ".repeat(300_000);
  const { title } = await loadOne("long.md", `# Tides${spaces}x ##\n\nThe tide.`);
  expect(title).toBe("Tides x");
});

test("a PDF that takes too long is given up", async () => {
  const slow = readPdf(pdfOf("x", "y"), { name: "slow.pdf", timeoutMs: 1 });
  await expect(slow).rejects.toThrow(DocumentUnreadable);
  await expect(slow).rejects.toThrow(/slow\.pdf.*longer than/);
});

test("what Postgres or the splitter could not take never leaves the loader", async () => {
  const line = `{"_id":"a","title":"T\\u0000\\ud800","text":"x\\u0000y\\u001ez\\udfff"}`;
  const { title, text } = await loadOne("a.jsonl", line);
  expect(title).toBe("T \uFFFD");
  expect(text).toBe("x y z\uFFFD");
});

test("every unreadable file is named with its reason, and the others are indexed", async () => {
  const folder = await makeFolder({
    "good.txt": "harbour",
    "nul.txt": "a\0b",
    "latin.txt": Buffer.from("caf\u00E9", "latin1"),
    "empty.md": " \n",
    "broken.pdf": "%PDF-1.4 nothing",
    "scanned.pdf": pdfOf("Scan", ""),
    "broken.jsonl.gz": "not gzip",
    "cut.jsonl.gz": gzipSync(`{"_id":"1","text":"pier"}\n`.repeat(50)).subarray(0, 40),
    // Two texts that are stored as one.
    "twice.jsonl": `{"_id":"a\\u0001","text":"pier"}\n{"_id":"a\\u0002","text":"quay"}\n`,
    "program.exe": "ignored",
  });
  const report = await index(db.database, "bad", [folder.path, join(folder.path, "none"), "package.json"]);
  const reasons = Object.fromEntries(report.failed.map(({ source, reason }) => [source, reason]));
  expect(reasons).toMatchObject({
    "nul.txt": expect.stringContaining("NUL"),
    "latin.txt": expect.stringContaining("UTF-8"),
    "empty.md": expect.stringContaining("no text"),
    "broken.pdf": expect.stringContaining("PDF"),
    "scanned.pdf": expect.stringContaining("no text"),
    "broken.jsonl.gz": expect.stringContaining("cannot be read"),
    "cut.jsonl.gz": expect.stringContaining("cannot be read"),
    "twice.jsonl:2": expect.stringContaining("_id of an earlier line"),
    [join(folder.path, "none")]: expect.stringContaining("no such file"),
    "package.json": expect.stringContaining(".jsonl.gz"),
  });
  expect(report.failed.every(({ code }) => code === "document_unreadable")).toBe(true);
  expect(await find(db.database, "bad", "harbour")).toEqual(["good.txt"]);
});

test("a bad line is named by its number, and the other lines are indexed", async () => {
  const lines = [
    `{"_id":"a","title":"First","text":"harbour"}`,
    "",
    "{broken",
    `{"_id":"b"}`,
    `{"_id":"a","text":"again"}`,
    `{"_id":7,"text":"pier","extra":true}`,
  ];
  const folder = await makeFolder({ "c.jsonl": lines.join("\n"), "d.jsonl.gz": gzipSync(lines[0] ?? "") });
  const report = await index(db.database, "lines", [folder.path]);
  expect(report).toMatchObject({ indexed: 3, chunks: 3 });
  expect(report.failed.map(({ source }) => source)).toEqual(["c.jsonl:3", "c.jsonl:4", "c.jsonl:5"]);
  expect(await find(db.database, "lines", "pier")).toEqual(["c.jsonl#7"]);
  expect((await find(db.database, "lines", "harbour")).toSorted()).toEqual(["c.jsonl#a", "d.jsonl.gz#a"]);
});

test("a link that leads to itself is reported", async () => {
  const folder = await makeFolder();
  await symlink("self.txt", join(folder.path, "self.txt"));
  const report = await index(db.database, "loop", [folder.path]);
  expect(report.failed).toMatchObject([{ source: "self.txt", reason: expect.stringContaining("circle") }]);
});

test("a refusal of the file system is told in words; an error of our own is not swallowed", () => {
  const denied = Object.assign(new Error("EACCES: /a"), { code: "EACCES" });
  expect(unreadable("a.txt", denied).message).toBe("a.txt cannot be read: permission was denied.");
  expect(() => unreadable("a.txt", new TypeError("bug"))).toThrow("bug");
});

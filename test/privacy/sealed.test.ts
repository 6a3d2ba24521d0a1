// What sealing promises: words that nobody would redact stand nowhere on disk in plain text, whichever way they came. The
// graph tokenises, so that personal data is kept too, and must not be found either.
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import type { Database } from "../../server/storage/database.ts";
import { startEmbedded } from "../../server/storage/embedded/embedded.ts";
import type { Embedded } from "../../server/storage/embedded/embedded.ts";
import { openTestPool } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { TEST_KEYS } from "../support/keys.ts";
import { collect } from "../support/server.ts";
import { dumpOf, findIn, searchFolder, taintsOfEachKind } from "../support/taint.ts";
import type { Taint } from "../support/taint.ts";
import { until } from "../support/until.ts";

const PLACES = ["model", "parser", "arguments", "tool", "custom", "store", "key", "nested", "kept error"];
const MODES = ["values", "updates", "messages-tuple", "custom", "tasks", "debug"] as const;

let folder: string;
let postgres: Embedded;
let database: Database;
let server: Running;
let receiver: Server;
let calls = 0;
const planted: Taint[] = [];

/** A word of its own, to be looked for in the end. */
function word(): string {
  const core = `wordzq${String(planted.length).padStart(4, "0")}xk`;
  const kinds = taintsOfEachKind();
  const personal = kinds.filter((_, index) => index % kinds.length === planted.length % kinds.length);
  planted.push({ value: core, core }, ...personal);
  return [core, ...personal.map(({ value }) => value)].join(", ");
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-sealed-"));
  await chmod(folder, 0o755); // as root, PostgreSQL runs as another user
  postgres = await startEmbedded({ dataDir: join(folder, "data") });
  database = openTestPool(postgres.url);
  const said = [...PLACES, "error", "interrupt"].map((place) => [place, [word()]] as const);
  await writeFile(join(folder, "words.json"), JSON.stringify(Object.fromEntries(said)));
  receiver = createServer((_, response) => {
    calls += 1;
    response.writeHead(503).end();
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  server = startHoldfast(["serve"], {
    DATABASE_URL: postgres.url,
    PORT: "0",
    HOLDFAST_KEYS: TEST_KEYS,
    HOLDFAST_CONFIG: "test/fixtures/apart.langgraph.json",
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
    TAINT_FILE: join(folder, "words.json"),
  });
  await server.says("Ready on ");
});

afterAll(async () => {
  server.process.kill("SIGKILL");
  await server.ended;
  await new Promise((resolve) => receiver.close(resolve));
  await database.close();
  await postgres.stop();
  await rm(folder, { recursive: true, force: true });
});

const asked = (content: string): Record<string, unknown> => ({ messages: [{ role: "user", content }] });

test("nothing that was asked, said, kept or thrown stands in a table, a file of the database or a log", async () => {
  const url = /Ready on (\S+)/.exec(server.out())?.[1] ?? "";
  const { threads, runs, crons, store } = new Client({ apiUrl: url, callerOptions: { maxRetries: 0 } });
  const { thread_id: threadId } = await threads.create();
  const asking = { input: asked(word()), streamMode: [...MODES], context: { of: word() } };
  const first = await collect(runs.stream(threadId, "leaky", asking));
  expect(first.filter(({ data }) => "__interrupt__" in Object(data))).not.toEqual([]);
  await collect(runs.stream(threadId, "leaky", { command: { resume: word() }, streamMode: [...MODES] }));
  await threads.updateState(threadId, { values: { answer: word(), notes: { of: word() } } });
  const { port } = receiver.address() as AddressInfo;
  const failing = { input: { ...asked(word()), fails: true }, webhook: `http://127.0.0.1:${port}/hook` };
  const third = await collect(runs.stream(threadId, "leaky", failing));
  expect(third.at(-1)?.event).toBe("error");
  await until(() => calls > 0, "the call-back to fail and wait");
  await store.putItem(["notes"], "one", { about: word(), deep: [{ of: word() }] });
  await crons.createForThread(threadId, "leaky", { schedule: "0 0 1 1 *", input: asked(word()) });
  await runs.create(threadId, "leaky", { input: asked(word()), afterSeconds: 600 });
  const copy = await threads.copy(threadId);
  // They are all there, for who has the keys.
  expect(JSON.stringify(await threads.getHistory(copy.thread_id, { limit: 100 }))).toContain("wordzq");
  const kept = await database.query("select distinct kind from holdfast.vault_entries where thread_id = $1", [
    copy.thread_id,
  ]);
  expect(kept.length).toBeGreaterThan(3);

  await database.query("checkpoint");
  const text = await dumpOf(database);
  expect(text).toContain(copy.thread_id);
  expect(findIn(Buffer.from(text), planted)).toEqual([]);
  expect(await searchFolder(join(folder, "data"), planted)).toEqual([]);
  expect(findIn(Buffer.from(server.out() + server.err()), planted)).toEqual([]);
}, 60_000);

test("what is not sealed by design, such as metadata, is found: the search can find", async () => {
  const control: Taint = { value: "controlzq0001xk", core: "controlzq0001xk" };
  await database.query("update holdfast.threads set metadata = $1::jsonb", [
    JSON.stringify({ of: control.value }),
  ]);
  await database.query("checkpoint");
  expect(findIn(Buffer.from(await dumpOf(database)), [control])).toEqual([control.core]);
  expect(await searchFolder(join(folder, "data"), [control])).not.toEqual([]);
});

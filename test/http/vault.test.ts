// Privacy "tokenise": what is found is kept apart, sealed, and shown to whoever gave it, and to nobody else.
import { createServer } from "node:http";
import type { Server } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test, vi } from "vitest";
import { TEST_KEYS } from "../support/keys.ts";
import { holding, letGo, waitsFor } from "../support/locks.ts";
import { command, ended, startRun, watch } from "../support/protocol.ts";
import { collect, startTestServer, useServer } from "../support/server.ts";
import { dumpOf, seenOf } from "../support/taint.ts";

const outbox: string[] = [];
let receiver: Server;
beforeAll(async () => {
  receiver = createServer((request, response) => {
    let body = "";
    request.on("data", (piece: Buffer) => (body += piece.toString()));
    request.on("end", () => {
      outbox.push(body);
      response.end();
    });
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
  vi.stubEnv("OUTBOX_URL", `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`);
});
afterAll(() => vi.unstubAllEnvs());
afterAll(() => new Promise((resolve) => receiver.close(resolve)));

const SETTINGS = { HOLDFAST_CONFIG: "test/fixtures/vault.langgraph.json", HOLDFAST_KEYS: TEST_KEYS };
const held = useServer(SETTINGS);
const as = (user: string, apiUrl = held.server.url): Client =>
  new Client({
    apiUrl,
    callerOptions: { maxRetries: 0 },
    defaultHeaders: { authorization: `Bearer ${user}` },
  });
const asked = (content: string): Record<string, unknown> => ({ messages: [{ role: "user", content }] });
const mail = "ada.l@example.org";
const TOKEN = /\[EMAIL:[a-z]{16}\]/g;
const MODES = [
  "values",
  "updates",
  "messages-tuple",
  "messages",
  "custom",
  "tasks",
  "debug",
  "events",
] as const;
const textOf = (value: unknown): string => JSON.stringify(value);

test("a cron belongs to no thread: what is found in it is kept for nobody", async () => {
  const { crons } = as("ada");
  const secret = "sk-abcdef1234567890abcdef";
  const made = (await crons.create("sending", {
    schedule: "0 0 1 1 *",
    input: asked(`Write to ${mail} with ${secret}.`),
    webhook: "https://example.org/hook",
  })) as unknown as { cron_id: string };
  await crons.update(made.cron_id, { input: asked(`Or to grace.h@example.org with ${secret}.`) });
  const [shown] = await as("grace").crons.search({ assistantId: "sending" });
  expect(textOf(shown?.payload)).toContain("Or to [REDACTED_EMAIL] with [REDACTED_SECRET]");
  await crons.delete(made.cron_id);
});

test("whoever gives an address is shown it in his stream, his state and his runs; the disk has tokens", async () => {
  const { threads, runs } = as("ada");
  const { thread_id: threadId } = await threads.create();
  const frames = await collect(
    runs.stream(threadId, "sending", { input: asked(`Write to ${mail}.`), streamMode: [...MODES] }),
  );
  expect(frames.filter(({ event }) => event === "error")).toEqual([]);
  expect(seenOf([frames])).toContain(`I wrote to them: Write to ${mail}. Or to bob@example.com.`);
  expect(textOf(frames)).not.toMatch(TOKEN);
  expect(outbox.at(-1)).toBe(`Write to ${mail}.`);
  for (const shown of [
    await threads.getState(threadId),
    await threads.getHistory(threadId),
    await runs.list(threadId),
    await threads.search({ ids: [threadId] }),
  ]) {
    expect(textOf(shown)).toContain(mail);
    expect(textOf(shown)).not.toMatch(TOKEN);
  }
  const dump = await dumpOf(held.scratch.database);
  for (const form of [mail, Buffer.from(mail).toString("hex"), "bob@example.com"])
    expect(dump).not.toContain(form);
});

test("another user who may read the thread sees tokens, the same one for the same address; the model saw them too", async () => {
  const { thread_id: threadId } = await as("ada").threads.create();
  await as("ada").runs.wait(threadId, "sending", {
    input: asked(`Write to ${mail}, I mean ADA.L@example.org.`),
  });
  const { values } = await as("grace").threads.getState<{ seen: string }>(threadId);
  const tokens = values.seen.match(TOKEN) ?? [];
  expect(tokens).toHaveLength(2);
  expect(new Set(tokens).size).toBe(1);
  expect(textOf(values)).not.toContain("@example");
  const told = await collect(
    as("grace").runs.joinStream(threadId, (await as("grace").runs.list(threadId))[0]?.run_id ?? "", {
      lastEventId: "-1",
    }),
  );
  expect(textOf(told)).not.toContain("@example");
  const { thread_id: other } = await as("ada").threads.create();
  await as("ada").runs.wait(other, "sending", { input: asked(`Write to ${mail}.`) });
  const elsewhere = await as("grace").threads.getState<{ seen: string }>(other);
  expect(elsewhere.values.seen).toMatch(TOKEN);
  expect(elsewhere.values.seen).not.toContain(tokens[0]);
});

test("who has the permission vault:reveal sees what others gave, and each showing is in the audit log", async () => {
  const { thread_id: threadId } = await as("ada").threads.create();
  await as("ada").runs.wait(threadId, "sending", { input: asked(`Write to ${mail}.`) });
  expect(textOf((await as("auditor").threads.getState(threadId)).values)).toContain(mail);
  const entries = await held.scratch.database.query<{ detail: { as: string }; actor_hash: string | null }>(
    "select detail, actor_hash from holdfast.audit_entries where action = 'vault.revealed' and object = $1",
    [`thread:${threadId}`],
  );
  expect(new Set(entries.map(({ detail }) => detail.as))).toEqual(new Set(["owner", "graph", "permission"]));
  const hashOf = (kind: string): string | null | undefined =>
    entries.find(({ detail }) => detail.as === kind)?.actor_hash;
  expect(hashOf("owner")).not.toBe(hashOf("permission"));
  // Quoted, as a name would stand there: its letters alone are now and then part of a hash.
  expect(textOf(entries)).not.toContain('"ada"');
  expect(textOf(entries)).not.toContain(mail);
});

test("a token is told to nobody before what it stands for is kept", async () => {
  const { thread_id: threadId } = await as("ada").threads.create();
  const { database } = held.scratch;
  // A lock of the table would hold the run's row too, which comes with what was found in its input: here with nothing.
  await database.query(`do $$ begin
    create function wait_for_test() returns trigger language plpgsql as 'begin perform pg_advisory_xact_lock_shared(1); return new; end';
    create trigger waits before insert on holdfast.vault_entries for each row execute function wait_for_test();
  end $$`);
  const lock = await holding(database, "/* holdVault */ select pg_advisory_xact_lock(1)");
  const run = await as("ada").runs.create(threadId, "sending", {
    input: asked("Write to them."),
    streamMode: ["messages-tuple"],
  });
  const told: string[] = [];
  const reading = (async () => {
    const stream = as("grace").runs.joinStream(threadId, run.run_id, { lastEventId: "-1" });
    for await (const frame of stream) told.push(textOf(frame));
  })();
  await waitsFor(database, "/* insertVaultEntries */");
  await delay(300); // whatever is told without waiting comes at once
  expect(told.join("")).not.toMatch(TOKEN);
  await letGo(lock);
  await reading;
  expect(told.join("")).toMatch(TOKEN);
  await database.query("drop function wait_for_test cascade");
});

test("a question, its answer, a state update and an error keep tokens, and show their owner the values", async () => {
  const { threads, runs } = as("ada");
  const { thread_id: threadId } = await threads.create();
  await runs.wait(threadId, "sending", { input: { ...asked(`Write to ${mail}.`), asks: true } });
  expect(textOf((await threads.get(threadId)).interrupts)).toContain(`Is it Write to ${mail}.?`);
  await runs.wait(threadId, "sending", { command: { resume: "carl@example.org" } });
  expect(textOf((await threads.getState(threadId)).values)).toContain("carl@example.org");
  await threads.updateState(threadId, { values: { seen: "dora@example.org" }, asNode: "send" });
  expect(textOf((await threads.getState(threadId)).values)).toContain("dora@example.org");
  const failing = { input: { ...asked(`Write to ${mail}.`), asks: false, fails: true } };
  const frames = await collect(runs.stream(threadId, "sending", failing));
  expect(frames.at(-1)).toMatchObject({
    event: "error",
    data: { message: `Nobody is at Write to ${mail}.` },
  });
  for (const hidden of [mail, "carl@", "dora@"]) {
    expect(textOf(await as("grace").threads.getHistory(threadId, { limit: 100 }))).not.toContain(hidden);
    expect(await dumpOf(held.scratch.database)).not.toContain(hidden);
  }
});

test("what is said of a graph that cannot be made keeps tokens, and shows the caller of the run the values", async () => {
  const { thread_id: threadId } = await as("ada").threads.create();
  const frames = await collect(as("ada").runs.stream(threadId, "unmade", { input: {} }));
  expect(frames.at(-1)).toMatchObject({
    event: "error",
    data: { message: "Nobody is at fred@example.org." },
  });
  const [run] = await as("grace").runs.list(threadId);
  const told = await collect(as("grace").runs.joinStream(threadId, run?.run_id ?? "", { lastEventId: "-1" }));
  expect(textOf(told)).toMatch(TOKEN);
  expect(await dumpOf(held.scratch.database)).not.toContain("fred@");
});

const place = (user: string): Parameters<typeof watch>[0] => ({
  url: held.server.url,
  fetch: (url, init) => {
    const headers = new Headers(init?.headers);
    headers.set("authorization", `Bearer ${user}`);
    return fetch(url, { ...init, headers });
  },
});

test("over protocol v2 it is the same, for him who asks and for others who follow the thread", async () => {
  const gone = new AbortController();
  const { thread_id: threadId } = await as("ada").threads.create();
  const [mine, others] = [
    await watch(place("ada"), threadId, gone.signal),
    await watch(place("grace"), threadId, gone.signal),
  ];
  await startRun(place("ada"), threadId, "sending", { ...asked(`Write to ${mail}.`), asks: true });
  await Promise.all([ended(mine), ended(others)]);
  const id = Object.values((await as("ada").threads.get(threadId)).interrupts)[0]?.[0]?.id;
  await command(place("ada"), threadId, "input.respond", {
    namespace: [],
    interrupt_id: id,
    response: "carl@example.org",
  });
  await Promise.all([ended(mine, 2), ended(others, 2)]);
  gone.abort();
  expect(seenOf([mine])).toContain(`I wrote to them: Write to ${mail}.`);
  expect(textOf(mine)).toContain("carl@example.org");
  expect(textOf(others)).toMatch(TOKEN);
  expect(textOf(others)).not.toContain("@example");
});

test("a thread that is made with a past keeps what is found in it for who made it", async () => {
  const values = { ...asked("Ask eve@example.org"), seen: "eve@example.org" };
  const { thread_id: threadId } = await as("ada").threads.create({
    graphId: "sending",
    supersteps: [{ updates: [{ values, asNode: "send" }] }],
  });
  expect(textOf(await as("ada").threads.getState(threadId))).toContain("eve@example.org");
  expect(textOf(await as("grace").threads.getState(threadId))).toMatch(TOKEN);
  expect(await dumpOf(held.scratch.database)).not.toContain("eve@example.org");
});

test("a secret is never kept, what belongs to no thread is redacted, and other graphs are as before", async () => {
  const { threads, runs, store } = as("ada");
  const { thread_id: threadId } = await threads.create({ metadata: { of: mail } });
  const values = await runs.wait(threadId, "sending", { input: asked("password=hunter2hunter2 is it") });
  expect(textOf(values)).toContain("password=[REDACTED_SECRET]");
  expect((await threads.get(threadId)).metadata).toMatchObject({ of: "[REDACTED_EMAIL]" });
  await store.putItem(["notes"], "one", { of: mail });
  expect((await store.getItem(["notes"], "one"))?.value).toEqual({ of: "[REDACTED_EMAIL]" });
  const { thread_id: plain } = await threads.create();
  expect(await runs.wait(plain, "keeping", { input: { value: mail } })).toMatchObject({
    value: "[REDACTED_EMAIL]",
  });
});

test("a copy shows its owner the values also when the thread it was made of is gone; a deleted thread shows none", async () => {
  const { threads, runs } = as("ada");
  const { thread_id: threadId } = await threads.create();
  await runs.wait(threadId, "sending", { input: asked(`Write to ${mail}.`) });
  const copy = await threads.copy(threadId);
  const { values } = await as("grace").threads.getState<{ seen: string }>(threadId);
  await threads.delete(threadId);
  expect(textOf((await threads.getState(copy.thread_id)).values)).toContain(mail);
  await threads.delete(copy.thread_id);
  const rows = await held.scratch.database.query("select 1 from holdfast.vault_entries where token = $1", [
    values.seen.match(TOKEN)?.[0],
  ]);
  expect(rows).toEqual([]);
});

test("without keys a server does not start with it, and says what to do", async () => {
  const without = { HOLDFAST_CONFIG: SETTINGS.HOLDFAST_CONFIG };
  const { testDatabase } = await import("../support/database.ts");
  const scratch = await testDatabase();
  await expect(startTestServer(scratch.url, without)).rejects.toThrow(/tokenise.*HOLDFAST_KEYS_FILE/);
  await scratch.close();
});

// The promise itself: what is found as personal data or a secret stands nowhere on disk, in no log, in no stream and in
// no call-back, whichever way it came and whoever died meanwhile. A graph that takes no care is served beside our own.
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
import { startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { command, ended, roots, startRun, watch } from "../support/protocol.ts";
import { collect } from "../support/server.ts";
import { dumpOf, findIn, searchFolder, seenOf, taintsOfEachKind, toldOf } from "../support/taint.ts";
import type { Taint } from "../support/taint.ts";
import { until } from "../support/until.ts";

const PLACES = [
  "model",
  "parser",
  "arguments",
  "tool",
  "custom",
  "store",
  "key",
  "nested",
  "kept error",
  "error",
  "interrupt",
];
// How many values of each kind are sent to each place; 3 make more than a thousand.
const EACH = Number(process.env["TAINT_EACH"] ?? 1);
const MODES = ["values", "updates", "messages-tuple", "messages", "custom", "tasks", "debug"] as const;

let folder: string;
let postgres: Embedded;
let database: Database;
let model: FakeModel;
let receiver: Server;
const called: string[] = [];
const planted: Taint[] = [];
const servers: Running[] = [];
const streams: (readonly unknown[])[] = [];

/** New values, to be looked for in the end, in one text. */
function taint(each = EACH): string {
  const fresh = taintsOfEachKind(each);
  planted.push(...fresh);
  return fresh.map(({ value }) => value).join(" and ");
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-taint-"));
  await chmod(folder, 0o755); // as root, PostgreSQL runs as another user
  postgres = await startEmbedded({ dataDir: join(folder, "data") });
  database = openTestPool(postgres.url);
  const places = PLACES.map((place) => {
    const fresh = taintsOfEachKind(EACH);
    planted.push(...fresh);
    return [place, fresh.map(({ value }) => value)] as const;
  });
  await writeFile(join(folder, "taints.json"), JSON.stringify(Object.fromEntries(places)));
  const said = `It is ${taint()}, and more of it follows`;
  // Cut anywhere, as a model cuts it; the second name is slow enough to be killed in the middle.
  const pieces = (size: number): string[] => said.match(new RegExp(`[^]{1,${size}}`, "g")) ?? [];
  const indexing = startHoldfast(["index", "docs/start.md"], { DATABASE_URL: postgres.url });
  await indexing.ended;
  model = await startFakeModel({
    scripts: (name) =>
      name === "told"
        ? { pieces: pieces(3) }
        : name === "slow"
          ? { pieces: pieces(4), delayMs: 100 / EACH }
          : undefined,
  });
  receiver = createServer((request, response) => {
    request.on("data", (chunk: Buffer) => called.push(chunk.toString()));
    request.on("end", () => response.end());
  });
  await new Promise<void>((resolve) => receiver.listen(0, "127.0.0.1", resolve));
});
afterAll(async () => {
  for (const { process: child, ended: over } of servers) {
    child.kill("SIGKILL");
    await over;
  }
  await new Promise((resolve) => receiver.close(resolve));
  await model.stop();
  await database.close();
  await postgres.stop();
  await rm(folder, { recursive: true, force: true });
});

async function start(modelName: string): Promise<{ running: Running; url: string; client: Client }> {
  const running = startHoldfast(["serve"], {
    DATABASE_URL: postgres.url,
    PORT: "0",
    OPENAI_API_KEY: "none",
    OPENAI_BASE_URL: model.url,
    HOLDFAST_MODEL: modelName,
    HOLDFAST_CONFIG: "test/fixtures/leaky.langgraph.json",
    HOLDFAST_EGRESS_ALLOW: "127.0.0.1",
    HOLDFAST_LOG_LEVEL: "debug",
    TAINT_FILE: join(folder, "taints.json"),
  });
  servers.push(running);
  await running.says("Ready on ");
  const url = /Ready on (\S+)/.exec(running.out())?.[1] ?? "";
  return { running, url, client: new Client({ apiUrl: url, callerOptions: { maxRetries: 0 } }) };
}

const asked = (content: string): Record<string, unknown> => ({ messages: [{ role: "user", content }] });

test(
  "nothing that came in, was said, asked, kept or thrown is found anywhere",
  async () => {
    const { url, client } = await start("told");
    const place = { url, fetch };
    const { threads, runs, assistants, crons, store } = client;

    // Over the legacy API: a run to its question, the answer, a state update, and one that fails.
    const { thread_id: threadId } = await threads.create({ metadata: { about: taint(), [taint()]: 1 } });
    const options = { input: asked(taint()), streamMode: [...MODES] };
    const first = await collect(runs.stream(threadId, "leaky", { ...options, metadata: { note: taint() } }));
    expect(first.filter(({ data }) => "__interrupt__" in Object(data))).not.toEqual([]);
    const second = await collect(
      runs.stream(threadId, "leaky", { command: { resume: taint() }, streamMode: [...MODES] }),
    );
    expect(second.filter(({ event }) => event === "error")).toEqual([]);
    await threads.updateState(threadId, { values: { answer: taint(), notes: { of: taint() } } });
    const port = (receiver.address() as AddressInfo).port;
    const failing = {
      input: { ...asked(taint()), fails: true },
      webhook: `http://127.0.0.1:${port}/hook`,
      context: { of: taint() },
    };
    const third = await collect(
      runs.stream(threadId, "leaky", { ...failing, streamMode: ["events", ...MODES] }),
    );
    expect(third.at(-1)?.event).toBe("error");
    streams.push(first, second, third);

    // Over protocol v2.
    const gone = new AbortController();
    const { thread_id: watched } = await threads.create();
    const events = await watch(place, watched, gone.signal);
    await startRun(place, watched, "leaky", asked(taint()), { metadata: { note: taint() } });
    await ended(events);
    const { interrupts } = await threads.get(watched);
    const id = Object.values(interrupts)[0]?.[0]?.id;
    await command(place, watched, "input.respond", { namespace: [], interrupt_id: id, response: taint() });
    await ended(events, 2);

    // Our own graph, with a model that says it, and one that dies in the middle of it.
    await startRun(place, watched, "holdfast", asked(taint()));
    await ended(events, 3);
    expect(roots(events).at(-1)).toBe("completed");
    const { running: dying, client: there } = await start("slow");
    const { thread_id: taken } = await threads.create();
    const begun: unknown[] = [];
    const watching = (async () => {
      const slow = { input: asked(taint()), streamMode: ["messages-tuple" as const] };
      for await (const part of there.runs.stream(taken, "holdfast", slow)) begun.push(part);
    })();
    await until(() => begun.length > 4, "the answer to begin");
    dying.process.kill("SIGKILL");
    await expect(watching).rejects.toThrow(/terminated|fetch failed/);
    await until(async () => (await threads.get(taken)).status === "idle", "the run to end elsewhere", 20_000);
    gone.abort();
    streams.push(events, begun);

    // What is no run.
    await threads.update(taken, { metadata: { about: taint() } });
    await store.putItem(["notes"], "one", { about: taint(), deep: [{ of: taint() }] });
    await assistants.create({
      graphId: "leaky",
      name: taint(1),
      metadata: { of: taint() },
      context: { of: taint() },
    });
    await crons.createForThread(taken, "leaky", {
      schedule: "0 0 1 1 *",
      input: asked(taint()),
      metadata: { of: taint() },
    });
    const copy = await threads.copy(threadId);
    await until(() => called.length > 0, "the call-back", 20_000);

    // What is used to find things is refused.
    const named = taintsOfEachKind();
    planted.push(...named);
    const put = (namespace: string[], key: string): Promise<void> => store.putItem(namespace, key, { of: 1 });
    for (const { value } of named) await expect(put(["users"], value)).rejects.toThrow("key holds");
    // The client itself refuses a label with a dot.
    for (const { value } of named.filter((one) => !one.value.includes(".")))
      await expect(put(["users", value], "one")).rejects.toThrow("namespace holds");

    await database.query("checkpoint");
    if (EACH > 1) console.log(`${planted.length} values`);
    const text = await dumpOf(database);
    expect(text).toContain(threadId);
    expect(text).toContain(copy.thread_id);
    expect(text).toContain("[REDACTED_EMAIL]");
    expect(findIn(Buffer.from(text), planted)).toEqual([]);
    expect(await searchFolder(join(folder, "data"), planted)).toEqual([]);
    const logs = servers.map((server) => server.out() + server.err()).join("\n");
    expect(logs).toContain("run.finished");
    expect(findIn(Buffer.from(logs), planted)).toEqual([]);
    const told = await toldOf(database);
    expect(told).toContain("[REDACTED_EMAIL]");
    expect(findIn(Buffer.from(told), planted)).toEqual([]);
    expect(findIn(Buffer.from(JSON.stringify(streams)), planted)).toEqual([]);
    expect(findIn(Buffer.from(seenOf(streams)), planted)).toEqual([]);
    expect(findIn(Buffer.from(called.join("\n")), planted)).toEqual([]);
    // On our own graph there is nothing left for the last wall to find.
    const masked = logs.split("\n").filter((line) => line.includes("privacy.masked"));
    expect(masked.some((line) => line.includes('"leaky"'))).toBe(true);
    expect(masked.filter((line) => line.includes('"holdfast"'))).toEqual([]);
    const counts = logs
      .split("\n")
      .filter((line) => line.includes("run.finished") && line.includes('"masked"'));
    expect(counts.some((line) => line.includes('"leaky"'))).toBe(true);
    expect(counts.filter((line) => line.includes('"holdfast"'))).toEqual([]);
  },
  90_000 * EACH,
);

test("what is planted by hand is found in a dump and in the files of the database", async () => {
  const control = taintsOfEachKind();
  const about = JSON.stringify({ of: control.map(({ value }) => value) });
  await database.query("update holdfast.threads set metadata = $1::jsonb", [about]);
  await database.query("checkpoint");
  const cores = control.map(({ core }) => core);
  expect(findIn(Buffer.from(await dumpOf(database)), control)).toEqual(cores);
  const files = await searchFolder(join(folder, "data"), control);
  expect(cores.filter((core) => !files.some((line) => line.endsWith(core)))).toEqual([]);
  // Letter by letter, as a model may tell it.
  const letters = control.flatMap(({ value }) =>
    value.split("").map((letter) => ({ event: "m", data: [{ content: letter }] })),
  );
  expect(findIn(Buffer.from(JSON.stringify(letters)), control)).toEqual([]);
  expect(findIn(Buffer.from(seenOf([letters])), control)).toEqual(cores);
  for (const form of [
    (core: string) => Buffer.from(core, "utf16le"),
    (core: string) => Buffer.from(Buffer.from(`x${core}`).toString("base64")),
    (core: string) => Buffer.from(Buffer.from(core).toString("hex")),
  ])
    expect(cores.flatMap((core) => findIn(form(core), control))).toEqual(cores);
});

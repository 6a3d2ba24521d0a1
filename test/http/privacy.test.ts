// What an operator says of privacy is what happens: graphs that are off, own rules, what auth stamps, what is refused.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { afterAll, beforeAll, expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { readGraphsFile } from "../../server/runs/graph/graphs.ts";
import { startHoldfast } from "../support/holdfast.ts";
import { useServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/guarded.langgraph.json" });
let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "holdfast-privacy-"));
});
afterAll(() => rm(folder, { recursive: true, force: true }));

const as = (user: string): Client =>
  new Client({
    apiUrl: held.server.url,
    callerOptions: { maxRetries: 0 },
    defaultHeaders: { authorization: `Bearer ${user}` },
  });
const mail = "grace@example.org";
const send = (path: string, body: object, headers: Record<string, string> = {}): Promise<Response> =>
  fetch(`${held.server.url}${path}`, {
    method: path === "/store/items" ? "PUT" : "POST",
    headers: { authorization: "Bearer ada", ...headers },
    body: JSON.stringify(body),
  });
const stored = async (table: string): Promise<string> =>
  JSON.stringify(await held.scratch.database.query(`select t::text as row from ${table} t`));

test("a graph that is off keeps what it is given; every other one keeps placeholders, by own rules too", async () => {
  const { threads, runs } = as("ada");
  const kept = async (graph: string): Promise<unknown> => {
    const { thread_id: threadId } = await threads.create();
    await runs.wait(threadId, graph, { input: { value: `${mail} of E-123456` }, metadata: { of: mail } });
    const [run] = await runs.list(threadId);
    const { values } = await threads.getState<{ value: string }>(threadId);
    return [values.value, run?.metadata?.["of"]];
  };
  expect(await kept("keeping")).toEqual(["[REDACTED_EMAIL] of [REDACTED_EMPLOYEE_ID]", "[REDACTED_EMAIL]"]);
  expect(await kept("lab")).toEqual([`${mail} of E-123456`, mail]);
});

test("metadata of a thread is changed as its graph says", async () => {
  const { threads } = as("ada");
  const changed = async (graphId: string): Promise<unknown> => {
    const { thread_id: threadId } = await threads.create({ graphId });
    return (await threads.update(threadId, { metadata: { of: mail } })).metadata?.["of"];
  };
  expect([await changed("keeping"), await changed("lab")]).toEqual(["[REDACTED_EMAIL]", mail]);
});

test("the log knows own rules and names too", async () => {
  const { url } = held.scratch;
  const args = ["serve", "--port", "0", "--config", "test/fixtures/guarded.langgraph.json"];
  const server = startHoldfast(args, { DATABASE_URL: url, HOLDFAST_PRIVACY_NAMES: "on" });
  await server.says("http://");
  const [address = ""] = /http:\/\/[\d.:]+/.exec(server.out()) ?? [];
  const asked = { assistant_id: "forgetful", input: { value: "E-123456, Ada Lovelace" } };
  const body = JSON.stringify(asked);
  await fetch(`${address}/runs/wait`, { method: "POST", headers: { authorization: "Bearer ada" }, body });
  await until(() => server.err().includes("promise.unhandled"), "the line");
  server.process.kill("SIGTERM");
  await server.ended;
  expect(server.err()).toContain("[REDACTED_EMPLOYEE_ID]");
  expect(server.err()).not.toMatch(/E-123456|Lovelace/);
});

test("an assistant is treated as its graph", async () => {
  const { assistants, threads, runs } = as("ada");
  const made = await assistants.create({ graphId: "lab", context: { of: mail }, metadata: { of: mail } });
  expect([made.context, made.metadata?.["of"]]).toEqual([{ of: mail }, mail]);
  const other = await assistants.create({
    graphId: "keeping",
    context: { of: mail },
    metadata: { of: mail },
  });
  expect([other.context, other.metadata?.["of"]]).toEqual([{ of: "[REDACTED_EMAIL]" }, "[REDACTED_EMAIL]"]);
  const changed = await assistants.update(made.assistant_id, { metadata: { of: mail, and: mail } });
  expect(changed.metadata).toMatchObject({ of: mail, and: mail });
  const { thread_id: threadId } = await threads.create();
  await runs.wait(threadId, made.assistant_id, { input: { value: mail } });
  expect((await threads.getState(threadId)).values).toMatchObject({ value: mail });
  // Its context comes under the rules of its new graph, and a request cannot choose whose rules it is under.
  await assistants.update(made.assistant_id, { graphId: "keeping" });
  const body = { assistant_id: made.assistant_id, graph_id: "lab", input: { value: mail } };
  const answer = await send(`/threads/${threadId}/runs/wait`, body);
  expect(await answer.json()).toMatchObject({ value: "[REDACTED_EMAIL]" });
  expect((await runs.list(threadId)).at(-1)).toMatchObject({
    kwargs: { context: { of: "[REDACTED_EMAIL]" } },
  });
});

test("what auth says of a caller is kept as it is, so that nobody is taken for somebody else", async () => {
  const [ada, grace] = [as("ada"), as("grace")];
  const { thread_id: threadId } = await ada.threads.create({ metadata: { owner: "mallory@example.org" } });
  expect((await ada.threads.get(threadId)).metadata).toMatchObject({ owner: "ada@example.org" });
  await expect(grace.threads.get(threadId)).rejects.toThrow("404");
  expect(await grace.threads.search({ metadata: {} })).toEqual([]);
});

test("metadata is searched by what became of it", async () => {
  const { threads } = as("grace");
  const { thread_id: threadId } = await threads.create({ metadata: { about: mail } });
  const found = await threads.search({ metadata: { about: mail } });
  expect(found.map(({ thread_id: id }) => id)).toEqual([threadId]);
});

test("a name by which things are found is refused when it says too much, and nothing is kept of it", async () => {
  const { thread_id: threadId } = await as("ada").threads.create();
  const secret = "zq7kRefused0001@example.org";
  const run = { assistant_id: "keeping", input: { value: 1 } };
  const refused = [
    await send("/store/items", { namespace: ["users", secret], key: "one", value: {} }),
    await send("/store/items", { namespace: ["users"], key: secret, value: {} }),
    await send(`/threads/${threadId}/runs`, run, { "idempotency-key": secret }),
    await send(`/threads/${threadId}/runs`, { ...run, webhook: `https://example.org/?for=${secret}` }),
    await send("/runs/crons", {
      ...run,
      schedule: "0 0 1 1 *",
      webhook: `https://example.org/?for=${secret}`,
    }),
  ];
  for (const answer of refused) {
    expect([answer.status, answer.headers.get("x-holdfast-code")]).toEqual([422, "pii_in_identifier"]);
    expect(await answer.text()).toMatch(/holds what looks like personal data or a secret \(EMAIL\)/);
  }
  for (const table of ["holdfast.store_items", "holdfast.runs", "holdfast.crons"])
    expect(await stored(table)).not.toContain("zq7kRefused");
});

test("the server says what is in force", async () => {
  const { privacy } = (await (await fetch(`${held.server.url}/info`)).json()) as { privacy: object };
  expect(privacy).toEqual({ mode: "redact", graphs: { lab: "off" }, names: false, sealed: false });
});

test.each([
  [{ mode: "mask" }, /privacy\.mode must be "redact", "tokenise" or "off"/],
  [{ graphs: { nobody: "off" } }, /privacy\.graphs names nobody, which is no graph of this file/],
  [{ rules: [{ kind: "id", pattern: "x" }] }, /privacy\.rules\.0\.kind must look like EMPLOYEE_ID/],
  [{ rules: [{ kind: "ID", pattern: "x", flags: "g" }] }, /privacy\.rules\.0\.flags may hold i and s/],
])("langgraph.json with privacy %j does not start a server", async (privacy, message) => {
  const path = join(folder, "langgraph.json");
  await writeFile(path, JSON.stringify({ graphs: { one: "./one.ts:one" }, privacy }));
  await expect(readGraphsFile(path)).rejects.toThrow(message);
});

test("a rule that could not be kept to does not start a server", () => {
  const rules = [{ kind: "ID", pattern: "x+" }];
  const open = (): unknown => openPrivacy({ mode: "redact", graphs: {}, rules, names: false });
  expect(open).toThrow(/^langgraph\.json: privacy\.rules: .*ID/);
});

// What assistants refuse: each answer names what was wrong, and nothing is written.
import { randomUUID } from "node:crypto";
import { expect, test } from "vitest";
import { startTestServer, useServer } from "../support/server.ts";

const held = useServer();
const NUL = String.fromCharCode(0);

const send = (method: string, path: string, body: object): Promise<Response> =>
  fetch(held.server.url + path, { method, body: JSON.stringify(body) });

const count = (): Promise<number> => held.server.client.assistants.count();

test.each([
  ["no graph", {}, /graph_id/],
  ["a graph id that is no text", { graph_id: 7 }, /graph_id/],
  ["an id that is no UUID", { graph_id: "echo", assistant_id: "mine" }, /assistant_id.*UUID/s],
  ["a name that is too long", { graph_id: "echo", name: "x".repeat(501) }, /name/],
  ["metadata that are no object", { graph_id: "echo", metadata: [] }, /metadata/],
  ["a config that is no object", { graph_id: "echo", config: "warm" }, /config/],
  ["an unknown if_exists", { graph_id: "echo", if_exists: "replace" }, /if_exists/],
])("an assistant with %s is 400", async (_, body, what) => {
  const before = await count();
  const response = await send("POST", "/assistants", body);
  expect(response.status).toBe(400);
  expect(response.headers.get("x-holdfast-code")).toBe("input_invalid");
  expect(await response.text()).toMatch(what);
  expect(await count()).toBe(before);
});

test.each([
  ["POST", "/assistants/search", { limit: 0 }, /limit/],
  ["POST", "/assistants/search", { offset: -1 }, /offset/],
  ["POST", "/assistants/search", { sort_by: "color" }, /sort_by/],
  ["POST", "/assistants/count", { metadata: "x" }, /metadata/],
  ["POST", "/assistants/echo/versions", { limit: 1001 }, /limit/],
  ["POST", "/assistants/echo/latest", {}, /version/],
  ["POST", "/assistants/echo/latest", { version: 1e12 }, /version/],
  ["PATCH", "/assistants/echo", { name: 7 }, /name/],
])("%s %s with %j is 400", async (method, path, body, what) => {
  const response = await send(method, path, body);
  expect([response.status, await response.text()]).toEqual([400, expect.stringMatching(what)]);
});

test.each([
  ["POST", "/assistants", { graph_id: "echo", name: NUL }],
  ["POST", "/assistants", { graph_id: "echo", context: { deep: [`a${NUL}`] } }],
  ["PATCH", "/assistants/echo", { config: { tags: [NUL] } }],
  ["POST", "/assistants/search", { name: NUL }],
  ["POST", "/assistants/count", { metadata: { [NUL]: 1 } }],
])("%s %s with a text that PostgreSQL cannot hold is 422", async (method, path, body) => {
  const response = await send(method, path, body);
  expect([response.status, response.headers.get("x-holdfast-code")]).toEqual([422, "poisoned_input"]);
});

test("a graph that is not served here is 404 by its name, for a new assistant and for an old one", async () => {
  const unknown = await send("POST", "/assistants", { graph_id: "elsewhere" });
  expect([unknown.status, unknown.headers.get("x-holdfast-code")]).toEqual([404, "graph_not_found"]);
  expect(await unknown.text()).toContain('Graph "elsewhere" is not served here');
  const { assistant_id: id } = await held.server.client.assistants.create({ graphId: "echo" });
  const moved = await send("PATCH", `/assistants/${id}`, { graph_id: "elsewhere" });
  expect([moved.status, moved.headers.get("x-holdfast-code")]).toEqual([404, "graph_not_found"]);
  expect(await held.server.client.assistants.get(id)).toMatchObject({ graph_id: "echo", version: 1 });

  // Its graph was taken out of langgraph.json meanwhile.
  await held.scratch.database.query(
    "update holdfast.assistants set graph_id = 'elsewhere' where assistant_id = $1",
    [id],
  );
  for (const path of ["graph", "schemas", "subgraphs"]) {
    const response = await fetch(`${held.server.url}/assistants/${id}/${path}`);
    expect([response.status, response.headers.get("x-holdfast-code")]).toEqual([404, "graph_not_found"]);
  }
  const run = await send("POST", "/runs/wait", { assistant_id: id, input: {} });
  expect([run.status, run.headers.get("x-holdfast-code")]).toEqual([404, "graph_not_found"]);
  expect((await held.server.client.assistants.get(id)).graph_id).toBe("elsewhere");
});

test("a graph's own assistant cannot be deleted and runs no other graph", async () => {
  for (const response of [
    await send("DELETE", "/assistants/echo?delete_threads=true", {}),
    await send("PATCH", "/assistants/echo", { graph_id: "topical" }),
  ]) {
    expect([response.status, response.headers.get("x-holdfast-code")]).toEqual([409, "assistant_fixed"]);
  }
  expect(await held.server.client.assistants.get("echo")).toMatchObject({ graph_id: "echo", version: 1 });
});

test("what a graph's own assistant was changed to stays when a server starts", async () => {
  const changed = await held.server.client.assistants.update("keeping", {
    name: "Keeper",
    graphId: "keeping",
    metadata: { created_by: "me" },
  });
  const next = await startTestServer(held.scratch.url);
  expect(await next.client.assistants.get("keeping")).toEqual(changed);
  expect(await next.client.assistants.getVersions("keeping")).toHaveLength(2);
  await next.stop();
});

test("a batch with one unknown assistant makes no run", async () => {
  const metadata = { batch: randomUUID() };
  const batch = [
    { assistantId: "keeping", metadata },
    { assistantId: randomUUID(), metadata },
  ];
  await expect(held.server.client.runs.createBatch(batch)).rejects.toThrow(/HTTP 404/);
  const made = await held.scratch.database.query("select from holdfast.runs where metadata @> $1", [
    metadata,
  ]);
  expect(made).toEqual([]);
});

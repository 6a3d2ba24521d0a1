// Assistants and what a server says of itself.
import { expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer();

const search = (body: object): Promise<Response> =>
  fetch(`${held.server.url}/assistants/search`, { method: "POST", body: JSON.stringify(body) });

test("a graph id is an assistant id everywhere, and is the same on every server", async () => {
  const byGraph = await held.server.client.assistants.get("echo");
  expect(byGraph).toMatchObject({
    graph_id: "echo",
    name: "echo",
    version: 1,
    metadata: { created_by: "system" },
  });
  expect(byGraph.assistant_id).toBe("046b5dc7-2108-582c-9c6c-31d556d138f0");
  expect(await held.server.client.assistants.get(byGraph.assistant_id)).toEqual(byGraph);
});

test("search pages visit every assistant exactly once", async () => {
  const seen: string[] = [];
  for (let offset = 0; ; offset += 3) {
    const page = await held.server.client.assistants.search({ limit: 3, offset });
    seen.push(...page.map(({ graph_id: graphId }) => graphId));
    if (page.length < 3) break;
  }
  expect(seen.toSorted()).toEqual([
    "asking",
    "echo",
    "endless",
    "failing",
    "keeping",
    "made",
    "parallel",
    "topical",
  ]);
  expect(await held.server.client.assistants.search({ graphId: "made" })).toHaveLength(1);
});

test("pagination headers give the full count and the next offset only when there is more", async () => {
  const first = await search({ limit: 3 });
  expect([first.headers.get("x-pagination-total"), first.headers.get("x-pagination-next")]).toEqual([
    "8",
    "3",
  ]);
  expect((await search({ limit: 8 })).headers.get("x-pagination-next")).toBeNull();
});

test("each assistant answers its graph and its schemas", async () => {
  const graph = await held.server.client.assistants.getGraph("echo", { xray: true });
  expect(graph.nodes.map(({ id }) => id)).toEqual(["__start__", "prepare", "answer", "__end__"]);
  const schemas = await held.server.client.assistants.getSchemas("echo");
  expect(schemas.graph_id).toBe("echo");
  expect(Object.keys(schemas.state_schema?.properties ?? {})).toEqual(["messages", "topic", "log"]);
  expect(Object.keys(schemas.input_schema?.properties ?? {})).toContain("messages");
});

test("an unknown assistant is 404 on its own routes and when a run asks for it", async () => {
  await expect(held.server.client.assistants.get("nobody")).rejects.toThrow("HTTP 404: Assistant not found");
  const { thread_id: threadId } = await held.server.client.threads.create();
  await expect(held.server.client.runs.wait(threadId, "nobody", { input: {} })).rejects.toThrow(
    'HTTP 404: No assistant found for "nobody". Make sure the assistant ID is for a valid assistant or a valid graph ID.',
  );
});

test("info names only the features that are built", async () => {
  expect(await (await fetch(`${held.server.url}/ok`)).json()).toEqual({ ok: true });
  expect(await (await fetch(`${held.server.url}/info`)).json()).toMatchObject({
    version: expect.stringMatching(/^\d+\.\d+\.\d+/),
    langgraph_js_version: "1.7.3",
    context: "js",
    flags: { assistants: true, crons: true },
  });
});

test("a browser on the web may ask a server on this machine", async () => {
  const response = await fetch(`${held.server.url}/info`, {
    method: "OPTIONS",
    headers: {
      origin: "https://studio.example",
      "access-control-request-method": "POST",
      "access-control-request-headers": "x-api-key",
      "access-control-request-private-network": "true",
    },
  });
  expect(Object.fromEntries(response.headers)).toMatchObject({
    "access-control-allow-origin": "*",
    "access-control-allow-headers": "x-api-key",
    "access-control-allow-private-network": "true",
  });
});

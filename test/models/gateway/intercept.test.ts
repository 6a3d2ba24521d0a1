// Which requests are calls of a run to a model: those to chat endpoints, on behalf of a run, however they are made.
import { afterEach, beforeEach, expect, test } from "vitest";
import { atNode, currentNode, onBehalfOf } from "../../../server/models/gateway/context.ts";
import type { CallContext, CallRequest } from "../../../server/models/gateway/context.ts";
import { interceptCalls } from "../../../server/models/gateway/intercept.ts";
import { startFakeModel } from "../../support/model.ts";

const fake = await startFakeModel();
const before = globalThis.fetch;
let stop: () => void;
let taken: CallRequest[] = [];
beforeEach(() => {
  taken = [];
  stop = interceptCalls();
});
afterEach(() => stop());

const chat = JSON.stringify({ model: "fake-echo", messages: [{ role: "user", content: "hi" }] });
const url = `${fake.url}/chat/completions`;
const post = { method: "POST", body: chat } as const;
const context = {
  call: async (request: CallRequest) => {
    taken.push(request);
    return new Response("ours");
  },
} as Partial<CallContext> as CallContext;

test.each([
  ["a text", () => fetch(url, post)],
  ["a URL", () => fetch(new URL(url), post)],
  ["a Request", () => fetch(new Request(url, post))],
  ["a Request that is changed", () => fetch(new Request(url), post)],
  ["a method in small letters", () => fetch(url, { ...post, method: "post" })],
])("a call that is made with %s is taken whole", async (_, call) => {
  expect(await (await onBehalfOf(context, call)).text()).toBe("ours");
  expect(taken).toMatchObject([{ url, body: chat, init: { method: "POST" } }]);
});

test.each([
  "/chat/completions/",
  "/completions",
  "/responses",
  "/models/m:streamGenerateContent",
  "/publishers/anthropic/models/m:streamRawPredict",
  "/model/anthropic.m-v1%3A0/invoke",
  "/model/anthropic.m-v1%3A0/converse-stream",
  "/api/chat",
  "/api/generate",
  "/v2/chat",
])("a request to %s, which asks a model too, is taken", async (path) => {
  await onBehalfOf(context, () => fetch(fake.url + path, post));
  await onBehalfOf(context, () =>
    fetch(`${fake.url}/messages`, { ...post, headers: { "anthropic-version": "2023-06-01" } }),
  );
  expect(taken).toHaveLength(2);
});

test("headers of a Request stay, also beside a body that is given with it", async () => {
  const request = new Request(url, { headers: { authorization: "Bearer k" } });
  await onBehalfOf(context, () => fetch(request, post));
  expect(new Headers(taken[0]?.init.headers).get("authorization")).toBe("Bearer k");
});

test("a request outside of a run, to another address or with another method is left alone", async () => {
  expect((await fetch(url, post)).status).toBe(200);
  await onBehalfOf(context, async () => {
    expect((await fetch(`${fake.url}/models`)).status).toBe(200);
    expect((await fetch(url)).status).toBe(404);
    expect((await fetch(`${fake.url}/messages`, post)).status).toBe(404);
    for (const body of ["{}", '{"messages":"model"}', new Uint8Array(2)])
      expect((await fetch(`${fake.url}/api/chat`, { ...post, body })).status).toBe(404);
    expect((await fetch(`${fake.url}/embeddings`, { ...post, body: "{}" })).status).toBe(400);
  });
  expect(taken).toEqual([]);
});

test("the run and the node are known in all that they begin, and in nothing else", async () => {
  const seen = await onBehalfOf(context, async () => {
    const later = atNode("a", async () => {
      await new Promise((resolve) => setImmediate(resolve));
      return currentNode();
    });
    return [atNode("b", currentNode), currentNode(), await later];
  });
  expect([...seen, currentNode()]).toEqual(["b", undefined, "a", undefined]);
});

test("fetch is as it was when the last one stops intercepting", () => {
  const another = interceptCalls();
  stop();
  expect(globalThis.fetch).not.toBe(before);
  another();
  another();
  expect(globalThis.fetch).toBe(before);
});

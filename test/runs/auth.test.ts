// The handlers of the user's auth: which one is asked, what its answer means, and that nothing else lets anybody in.
import { Auth, HTTPException } from "@langchain/langgraph-sdk/auth";
import { expect, test } from "vitest";
import { Authority, authOf } from "../../server/runs/auth.ts";
import type { Caller } from "../../server/runs/auth.ts";

const alice: Caller = { user: { identity: "alice" }, permissions: [] };
const request = new Request("http://127.0.0.1/threads");
type On = Parameters<Auth["on"]>;

function authorityOf(handlers: Record<string, unknown>, authenticate: unknown = () => "alice"): Authority {
  const auth = new Auth();
  auth.authenticate(authenticate as Parameters<Auth["authenticate"]>[0]);
  for (const [event, handler] of Object.entries(handlers)) auth.on(event as On[0], handler as On[1]);
  return new Authority(auth["~handlerCache"] as ConstructorParameters<typeof Authority>[0]);
}
const filterIn = async (handlers: Record<string, unknown>): Promise<unknown> =>
  (await authorityOf(handlers).authorize(alice, "threads:read", { thread_id: "t" })).filter;

const named = (name: string) => () => ({ by: name });
const failing = (error: unknown) => () => {
  throw error;
};

test("the most specific handler is asked, and no other", async () => {
  const order = ["threads:read", "threads", "*:read", "*"];
  for (const [index] of order.entries()) {
    const handlers = Object.fromEntries(order.slice(index).map((name) => [name, named(name)]));
    expect(await filterIn(handlers)).toBe(JSON.stringify({ by: order[index] }));
  }
  await expect(filterIn({ "threads:create": () => true, crons: () => true })).rejects.toMatchObject({
    status: 403,
  });
  await expect(filterIn({ constructor: () => true })).rejects.toMatchObject({ status: 403 });
});

test.each([
  [() => undefined, undefined],
  [() => null, undefined],
  [() => true, undefined],
  [async () => ({ owner: "alice" }), '{"owner":"alice"}'],
  [() => ({}), "{}"],
])("%s allows", async (handler, filter) => {
  expect(await filterIn({ "*": handler })).toBe(filter);
});

test.each([
  [() => false, 403, "Forbidden"],
  [() => "alice", 500, "handler of threads:read: it returned a string."],
  [() => 1, 500, "it returned a number"],
  [() => ["alice"], 500, "it returned a list"],
  [
    () => {
      throw new HTTPException(404, { message: "no such thing" });
    },
    404,
    "no such thing",
  ],
])("%s does not", async (handler, status, message) => {
  const asked = filterIn({ "*": handler });
  await expect(asked).rejects.toMatchObject({ status });
  await expect(asked).rejects.toThrow(message);
});

test("what a handler throws that is no HTTP answer is thrown on", async () => {
  await expect(filterIn({ "*": failing(new Error("a bug")) })).rejects.toThrow("a bug");
  const odd = Object.assign(new Error("odd"), { status: 200, headers: {} });
  await expect(filterIn({ "*": failing(odd) })).rejects.toBe(odd);
});

test("a handler is told who asks for what, and its changes are kept", async () => {
  let told: unknown;
  const authority = authorityOf({
    "threads:create": (asked: { value: { metadata?: object } }) => {
      told = { ...asked, value: { ...asked.value } };
      asked.value.metadata = { owner: "alice" };
    },
  });
  const permit = await authority.authorize(alice, "threads:create", { thread_id: "t", metadata: undefined });
  expect(told).toEqual({
    event: "threads:create",
    resource: "threads",
    action: "create",
    value: { thread_id: "t", metadata: undefined },
    user: alice.user,
    permissions: [],
  });
  expect(permit.value.metadata).toEqual({ owner: "alice" });
});

test("an identity alone is a user, and what more authenticate() says is kept", async () => {
  expect(await authorityOf({}).authenticate(request)).toEqual({
    user: { identity: "alice", display_name: "alice", is_authenticated: true, permissions: [] },
    permissions: [],
  });
  const whole = { identity: "a", display_name: "A", permissions: ["x"], team: "blue", can: () => true };
  const caller = await authorityOf({}, () => whole).authenticate(request);
  expect(caller).toEqual({ user: { ...whole, is_authenticated: true }, permissions: ["x"] });
  const { can: _function, ...plain } = caller.user;
  expect(authOf(caller)).toEqual({ user: plain, permissions: ["x"] });
});

test.each([
  [undefined, 500],
  [null, 500],
  ["", 500],
  [{}, 500],
  [{ identity: 7 }, 500],
  [{ identity: "a", permissions: "all" }, 500],
  [{ identity: "a", permissions: [], is_authenticated: false }, 401],
])("authenticate() that gives %o lets nobody in", async (given, status) => {
  await expect(authorityOf({}, () => given).authenticate(request)).rejects.toMatchObject({ status });
});

// Graphs that talk to their own server through the official client, as they would to another one.
import { expect, test } from "vitest";
import { announceLoopback } from "../../server/http/edge/loopback.ts";
import { useServer } from "../support/server.ts";

const held = useServer({ HOLDFAST_CONFIG: "test/fixtures/modes.json" });
const address = (): unknown => Reflect.get(globalThis, Symbol.for("langgraph_api:url"));

test("a client without an address inside a graph talks to the server that the graph runs in", async () => {
  const values = await held.server.client.runs.wait(null, "asking", {
    input: { messages: [{ role: "user", content: "hello" }] },
  });
  expect(Object(values).messages.at(-1)).toMatchObject({ type: "ai", content: "heard: alpha beta" });
});

test("a server that is bound to every address is reached at the loopback one, and is forgotten when it stops", () => {
  const own = address();
  const forget = announceLoopback("http://0.0.0.0:9");
  expect(address()).toBe("http://127.0.0.1:9");
  const forgetOther = announceLoopback("http://[::]:8");
  expect(address()).toBe("http://[::1]:8");
  forget();
  expect(address()).toBe("http://[::1]:8"); // the newest one stays
  forgetOther();
  expect(address()).toBeUndefined();
  announceLoopback(String(own));
});

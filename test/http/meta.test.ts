// What a server says of itself, and to whom.
import { expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer();

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

// What a server says of itself, and to whom.
import { expect, test } from "vitest";
import { useServer } from "../support/server.ts";

const held = useServer();

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

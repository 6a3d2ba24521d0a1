// Connections to addresses from clients: what is not public is not reached, however it is written.
import { createServer } from "node:http";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { afterAll, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ConfigInvalid, WebhookRefused } from "../../server/errors.ts";
import { openEgress } from "../../server/models/egress.ts";
import type { EgressRequest } from "../../server/services.ts";

let server: Server;
let port = 0;
let hits = 0;
let answer = (_request: IncomingMessage, response: ServerResponse): unknown => response.end("hello");

beforeAll(async () => {
  server = createServer((request, response) => {
    hits += 1;
    answer(request, response);
  });
  // Both families, so that a form that gets through finds somebody.
  await new Promise<void>((resolve) => server.listen(0, "::", resolve));
  port = (server.address() as AddressInfo).port;
});
afterAll(() => {
  server.closeAllConnections();
  server.close();
});
beforeEach(() => {
  hits = 0;
  answer = (_request, response) => response.end("hello");
});

const get: EgressRequest = { method: "GET", headers: {}, timeoutMs: 2000 };
const closed = openEgress();
afterAll(() => closed.close());

const literals = [
  "127.0.0.1",
  "127.1",
  "127.0.1",
  "0x7f000001",
  "0x7f.1",
  "0X7F.0.0.1",
  "0177.0.0.1",
  "017700000001",
  "2130706433",
  "127.0.0.1.",
  "127.255.255.254",
  "0.0.0.0",
  "0",
  "[::1]",
  "[::]",
  "[0:0:0:0:0:0:0:1]",
  "[::127.0.0.1]",
  "[::ffff:127.0.0.1]",
  "[::ffff:7f00:1]",
  "[::ffff:0:127.0.0.1]",
  "[64:ff9b::7f00:1]",
  "[64:ff9b:1::7f00:1]",
  "[2002:7f00:1::]",
  "[2001::1]",
  "[fe80::1]",
  "[fec0::1]",
  "[fc00::1]",
  "[ff02::1]",
  "[100::1]",
  "[2001:db8::1]",
  "[4000::1]",
  "①②⑦.⓪.⓪.①",
  "127。0。0。1",
  "１２７.0.0.1",
  "%31%32%37.0.0.1",
  "169.254.169.254",
  "0xa9fea9fe",
  "[::ffff:a9fe:a9fe]",
  "168.63.129.16",
  "100.100.100.200",
  "10.0.0.1",
  "172.16.0.1",
  "192.168.0.1",
  "192.0.0.8",
  "198.18.0.1",
  "224.0.0.1",
  "255.255.255.255",
  "localhost",
  "LOCALHOST",
  "localhost.",
  "sub.localhost",
  "ⓛocalhost",
];

test.each(literals)("an address that is not public is refused at the door: %s", async (host) => {
  const url = `http://${host}:${port}/`;
  expect(() => closed.assertPublicUrl(url)).toThrow(WebhookRefused);
  await expect(closed.send(url, get)).rejects.toThrow(WebhookRefused);
  expect(hits).toBe(0);
});

test.each([
  "ftp://example.com/",
  "file:///etc/passwd",
  "gopher://x",
  "//example.com",
  "example.com",
  "",
  "data:,x",
])("what is no http address is refused: %s", (url) => {
  expect(() => closed.assertPublicUrl(url)).toThrow(/http or https URL/);
});

test("an address with a password in it is refused", () => {
  expect(() => closed.assertPublicUrl("https://user:secret@example.com/")).toThrow(/user name or password/);
});

test.each(["https://example.com/hook", "http://8.8.8.8:8080/x?y=1", "https://[2606:4700::1111]/"])(
  "a public address is let through: %s",
  (url) => {
    expect(() => closed.assertPublicUrl(url)).not.toThrow();
  },
);

/** A name server that answers these addresses, one more private than the other. */
const answering = (...addresses: string[]) =>
  openEgress({
    resolve: (_host, _options, done) =>
      done(
        null,
        addresses.map((address) => ({ address, family: address.includes(":") ? 6 : 4 })),
      ),
  });

describe("a name is checked when it is connected to", () => {
  test.each([
    ["a private address", ["127.0.0.1"]],
    ["a private address written as IPv6", ["::ffff:127.0.0.1"]],
    ["a private address behind a public one", ["93.184.215.14", "127.0.0.1"]],
    ["the address of cloud metadata", ["169.254.169.254"]],
  ])("one that leads to %s is refused, and nobody is called", async (_, addresses) => {
    const egress = answering(...addresses);
    const url = `http://rebound.example:${port}/`;
    expect(() => egress.assertPublicUrl(url)).not.toThrow();
    await expect(egress.send(url, get)).rejects.toThrow(/rebound.example is not a public address/);
    expect(hits).toBe(0);
    await egress.close();
  });

  test("one that changes its mind is checked again at each connection", async () => {
    const seen: string[] = [];
    const egress = openEgress({
      allow: ["127.0.0.1"],
      resolve: (_host, _options, done) => {
        const address = seen.length === 0 ? "127.0.0.1" : "10.0.0.1";
        seen.push(address);
        done(null, [{ address, family: 4 }]);
      },
    });
    answer = (_request, response) => response.writeHead(200, { connection: "close" }).end();
    const url = `http://rebound.example:${port}/`;
    expect((await egress.send(url, get)).status).toBe(200);
    await expect(egress.send(url, get)).rejects.toThrow(WebhookRefused);
    expect(seen).toEqual(["127.0.0.1", "10.0.0.1"]);
    await egress.close();
  });

  test("one that leads there is reached when the operator opened the name", async () => {
    const egress = openEgress({ allow: ["localhost"] });
    expect(await egress.send(`http://localhost:${port}/`, get)).toEqual({ status: 200, body: "hello" });
    await egress.close();
  });

  test("one that leads there is reached when the operator opened its network", async () => {
    const egress = openEgress({ allow: ["127.0.0.0/8", "::1"] });
    const { status } = await egress.send(`http://127.0.0.1:${port}/`, get);
    expect(status).toBe(200);
    await egress.close();
  });
});

test("a redirect is an error, and is not followed", async () => {
  const egress = openEgress({ allow: ["127.0.0.1"] });
  answer = (_request, response) => response.writeHead(302, { location: "http://169.254.169.254/" }).end();
  await expect(egress.send(`http://127.0.0.1:${port}/`, get)).rejects.toThrow(/redirect/);
  expect(hits).toBe(1);
  await egress.close();
});

test("an answer that never ends is read to its cap, one that never comes to its time limit", async () => {
  const egress = openEgress({ allow: ["127.0.0.1"] });
  answer = (_request, response) => {
    const more = (): boolean => response.write("x".repeat(65_536)) && more();
    response.on("drain", more);
    more();
  };
  const { body } = await egress.send(`http://127.0.0.1:${port}/`, { ...get, maxBytes: 100_000 });
  expect(body).toHaveLength(100_000);
  answer = () => undefined;
  const startedAt = Date.now();
  await expect(egress.send(`http://127.0.0.1:${port}/`, { ...get, timeoutMs: 200 })).rejects.toThrow(
    /timeout/,
  );
  expect(Date.now() - startedAt).toBeLessThan(2000);
  await egress.close();
});

test("with https only, plain http stays possible for what the operator opened", () => {
  const egress = openEgress({ isHttpsOnly: true, allow: ["10.0.0.0/8", "*.svc.cluster.local"] });
  expect(() => egress.assertPublicUrl("http://example.com/")).toThrow(/https/);
  expect(() => egress.assertPublicUrl("https://example.com/")).not.toThrow();
  expect(() => egress.assertPublicUrl("http://10.1.2.3/")).not.toThrow();
  expect(() => egress.assertPublicUrl("http://hooks.svc.cluster.local/")).not.toThrow();
  expect(() => egress.assertPublicUrl("http://svc.cluster.local/")).toThrow(/https/);
});

test("an entry that is neither network, address nor name stops the start", () => {
  expect(() => openEgress({ allow: ["10.0.0.0/99"] })).toThrow(ConfigInvalid);
  expect(() => openEgress({ allow: ["http://hooks.internal"] })).toThrow(/HOLDFAST_EGRESS_ALLOW/);
  expect(() => openEgress({ allow: ["", " hooks.internal "] })).not.toThrow();
});

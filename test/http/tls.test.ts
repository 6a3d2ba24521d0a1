// HTTPS: with the operator's certificate, and with one that is made for development.
import { X509Certificate } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Client } from "@langchain/langgraph-sdk";
import { Agent, fetch as undiciFetch } from "undici";
import type { RequestInit } from "undici";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readConfig } from "../../server/config.ts";
import { selfSigned } from "../../server/http/edge/certificate.ts";
import { certificateOf } from "../../server/http/edge/tls.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { holdfast, startHoldfast } from "../support/holdfast.ts";
import { makeProject } from "../support/project.ts";
import { collect, startTestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const folder = mkdtempSync(join(tmpdir(), "holdfast-tls-"));
const [cert, key, other] = ["cert.pem", "key.pem", "other.pem"].map((name) => join(folder, name)) as [
  string,
  string,
  string,
];
const made = selfSigned("files.example");
let scratch: TestDatabase;
beforeAll(async () => {
  writeFileSync(cert, made.cert);
  writeFileSync(key, made.key);
  writeFileSync(other, selfSigned("other.example").key);
  scratch = await testDatabase();
});
afterAll(async () => {
  rmSync(folder, { recursive: true });
  await scratch.close();
});

/** The official client, which trusts this certificate alone. */
function trusting(apiUrl: string, ca: string): { client: Client; close: () => Promise<void> } {
  const dispatcher = new Agent({ connect: { ca } });
  const trusted = (url: string | URL, init?: object): Promise<unknown> =>
    undiciFetch(String(url), { ...(init as RequestInit), dispatcher });
  const callerOptions = { maxRetries: 0, fetch: trusted as typeof fetch };
  return { client: new Client({ apiUrl, callerOptions }), close: () => dispatcher.close() };
}

test("a certificate of its own is for this machine and the host, signed by its key, and valid now", () => {
  const one = new X509Certificate(selfSigned("dev.example").cert);
  for (const host of ["localhost", "dev.example"]) expect(one.checkHost(host)).toBe(host);
  for (const ip of ["127.0.0.1", "::1"]) expect(one.checkIP(ip)).toBe(ip);
  expect(one.checkHost("example.com")).toBeUndefined();
  expect(one.verify(one.publicKey)).toBe(true);
  expect(one.ca).toBe(false);
  expect(one.keyUsage).toEqual(["1.3.6.1.5.5.7.3.1"]);
  expect(one.validFromDate < new Date() && new Date() < one.validToDate).toBe(true);
  expect(new X509Certificate(selfSigned("dev.example").cert).serialNumber).not.toBe(one.serialNumber);
  for (const ip of ["10.1.2.3", "fe80::1:2", "2001:db8:1:2:3:4:5:6"])
    expect(new X509Certificate(selfSigned(ip).cert).checkIP(ip)).toBe(ip);
});

test("the server speaks HTTPS with the certificate of its files, streams, loopback clients and webhooks too", async () => {
  const { path } = makeProject({ http: { app: resolve("test/fixtures/custom-app.ts:app") } });
  const settings = { HOLDFAST_CONFIG: path, HOLDFAST_TLS_CERT: cert, HOLDFAST_TLS_KEY: key };
  const server = await startTestServer(scratch.url, settings);
  expect(server.url).toMatch(/^https:\/\/127\.0\.0\.1:\d+$/);
  const { client, close } = trusting(server.url, made.cert);
  const frames = await collect(client.runs.stream(null, "echo", { input: {} }));
  expect(frames.at(-1)).toMatchObject({ event: "values", data: { log: ["prepare", "answer"] } });
  const asked = { messages: [{ role: "user", content: "hello" }] };
  const heard = await client.runs.wait(null, "asking", { input: asked, webhook: "/custom/hook" });
  expect(Object(heard).messages.at(-1)).toMatchObject({ content: "heard: alpha beta" });
  const hooks = async (): Promise<string> => {
    const response = await undiciFetch(`${server.url}/custom/hooks`, {
      dispatcher: new Agent({ connect: { ca: made.cert } }),
    });
    return response.text();
  };
  await until(async () => (await hooks()).includes("heard: alpha beta"), "the webhook");
  await expect(fetch(`${server.url}/ok`)).rejects.toMatchObject({
    cause: { code: "DEPTH_ZERO_SELF_SIGNED_CERT" },
  });
  await expect(fetch(`${server.url.replace("https", "http")}/ok`)).rejects.toThrow("fetch failed");
  await close();
  await server.stop();
});

test("holdfast dev --https makes a certificate by itself", async () => {
  const { path } = makeProject({});
  const running = startHoldfast(["dev", "--https", "--port", "0", "--config", path], {
    DATABASE_URL: scratch.url,
  });
  await running.says("curl -N");
  expect(running.out()).toContain("curl -N -k https://127.0.0.1:");
  const url = /Ready on (\S+)/.exec(running.out())?.[1] ?? "";
  const dispatcher = new Agent({ connect: { rejectUnauthorized: false } });
  const answer = await undiciFetch(`${url}/ok`, { dispatcher });
  expect(await answer.json()).toEqual({ ok: true });
  await dispatcher.close();
  running.process.kill("SIGTERM");
  expect((await running.ended).code).toBe(0);
});

test.each([
  [{ HOLDFAST_HTTPS: "on" }, "needs HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY"],
  [{ HOLDFAST_TLS_CERT: cert }, "belong together; set both or none"],
  [{ HOLDFAST_TLS_KEY: key }, "belong together; set both or none"],
  [
    { HOLDFAST_TLS_CERT: `${cert}.gone`, HOLDFAST_TLS_KEY: key },
    `HOLDFAST_TLS_CERT names ${cert}.gone, which cannot be read: ENOENT`,
  ],
  [
    { HOLDFAST_TLS_CERT: cert, HOLDFAST_TLS_KEY: folder },
    `HOLDFAST_TLS_KEY names ${folder}, which cannot be read: EISDIR`,
  ],
  [{ HOLDFAST_TLS_CERT: cert, HOLDFAST_TLS_KEY: other }, "are no certificate and its key in PEM form: "],
  [{ HOLDFAST_TLS_CERT: key, HOLDFAST_TLS_KEY: key }, "are no certificate and its key in PEM form: "],
])("%o is refused in one sentence", async (env, text) => {
  await expect(certificateOf(readConfig(env), false)).rejects.toThrow(text);
});

test("holdfast serve --https without files does not start", async () => {
  const { path } = makeProject({});
  const { code, err } = await holdfast(["serve", "--https", "--port", "0", "--config", path], {
    DATABASE_URL: scratch.url,
  });
  expect([code, err]).toEqual([
    1,
    "holdfast: HOLDFAST_HTTPS (--https) needs HOLDFAST_TLS_CERT and HOLDFAST_TLS_KEY; only holdfast dev makes a certificate by itself.\n",
  ]);
});

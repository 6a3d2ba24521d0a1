// A setting is right, or the start stops with one sentence that names it.
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { readConfig, settings } from "../server/config.ts";
import { ConfigInvalid } from "../server/errors.ts";

const secret = "sk-this-must-never-be-shown";
let folder: string;

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "config-"));
});

afterAll(() => rm(folder, { recursive: true }));

function refusalOf(env: Record<string, string>): string {
  try {
    readConfig(env);
  } catch (error) {
    if (error instanceof ConfigInvalid) return error.message;
    throw error;
  }
  return expect.fail("the settings were accepted");
}

test("without any setting there is a server on loopback, port 8123, with an embedded database", () => {
  expect(readConfig({})).toMatchObject({
    host: "127.0.0.1",
    port: 8123,
    databaseUrl: undefined,
    dataDir: ".holdfast",
    preparedStatements: true,
    corsOrigins: ["*"],
  });
});

test("numbers, switches and lists are read as such", () => {
  const env = {
    PORT: "9000",
    HOLDFAST_PREPARED_STATEMENTS: "off",
    HOLDFAST_CORS_ORIGINS: "https://a.example, https://b.example",
  };
  expect(readConfig(env)).toMatchObject({
    port: 9000,
    preparedStatements: false,
    corsOrigins: ["https://a.example", "https://b.example"],
  });
});

test("an empty value counts as unset", () => {
  expect(readConfig({ PORT: "", DATABASE_URL: "" })).toEqual(readConfig({}));
});

test("a value of nothing but blanks is refused, whatever the setting: as a number it would be 0", () => {
  for (const { env } of Object.values(settings))
    for (const blank of [" ", "\t\n", "\u00a0"])
      expect(refusalOf({ [env]: blank })).toBe(`${env} holds nothing but blanks; leave it empty.`);
});

test("the command line wins over the environment", () => {
  expect(readConfig({ PORT: "9000" }, { PORT: "9001", HOLDFAST_HOST: undefined }).port).toBe(9001);
});

test.each([
  "postgresql://user@/database?host=/var/run/postgresql",
  "postgresql://user:p%23ss@127.0.0.1:5432/database?sslmode=require",
  "postgres:///database",
])("the address %s is one of PostgreSQL", (url) => {
  expect(readConfig({ DATABASE_URL: url }).databaseUrl).toBe(url);
});

test("a line break behind a key is not part of it", () => {
  expect(readConfig({ OPENAI_API_KEY: "sk-abc\n" }).openaiApiKey).toBe("sk-abc");
});

test("a misspelt name is refused and the nearest setting suggested", () => {
  expect(refusalOf({ HOLDFAST_DRAIN: "1" })).toBe(
    "HOLDFAST_DRAIN is not a setting; did you mean HOLDFAST_DRAIN_MS?",
  );
  expect(refusalOf({ HOLDFAST_LOGLEVEL: "info" })).toContain("did you mean HOLDFAST_LOG_LEVEL?");
});

test("names that are not ours are left alone", () => {
  expect(readConfig({ HOME: "/root", DATABASE_URLS: "x" })).toEqual(readConfig({}));
});

test.each([
  ["PORT", "eighty", "PORT must be a whole number from 0 to 65535."],
  ["PORT", "70000", "PORT must be at most 65535."],
  ["PORT", "80.5", "PORT must be a whole number from 0 to 65535."],
  ["HOLDFAST_POOL_SIZE", "1", "HOLDFAST_POOL_SIZE must be at least 2."],
  ["HOLDFAST_PREPARED_STATEMENTS", "yes", "HOLDFAST_PREPARED_STATEMENTS must be on or off."],
  ["HOLDFAST_LOG_LEVEL", "loud", "HOLDFAST_LOG_LEVEL must be debug, info, warn or error."],
  ["HOLDFAST_MESSAGES", "all", "HOLDFAST_MESSAGES must be delta or plain."],
  [
    "OPENAI_BASE_URL",
    "localhost",
    "OPENAI_BASE_URL must look like https://api.openai.com/v1, without a user or password.",
  ],
  [
    "DATABASE_URL",
    "mysql://localhost",
    "DATABASE_URL must look like postgresql://user:password@host:5432/database.",
  ],
])("%s=%s is refused in one sentence that names the setting", (name, value, sentence) => {
  expect(refusalOf({ [name]: value })).toBe(sentence);
});

test("a secret can be read from a file", async () => {
  const file = join(folder, "key");
  await writeFile(file, `${secret}\n`);
  expect(readConfig({ OPENAI_API_KEY_FILE: file }).openaiApiKey).toBe(secret);
});

test("a secret that is given twice is refused, and not shown", () => {
  const message = refusalOf({ OPENAI_API_KEY: secret, OPENAI_API_KEY_FILE: "/run/secrets/key" });
  expect(message).toBe("OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set; keep one.");
});

test("a secret's file that cannot be read is named", () => {
  const file = join(folder, "absent");
  expect(refusalOf({ DATABASE_URL_FILE: file })).toMatch(
    /^DATABASE_URL_FILE names a file that cannot be read/,
  );
});

test("a secret's file that holds nothing is refused: the secret would count as unset", async () => {
  const file = join(folder, "empty");
  await writeFile(file, " \n");
  const secrets = Object.values(settings).filter((one) => one.secret);
  for (const { env } of secrets)
    expect(refusalOf({ [`${env}_FILE`]: file })).toBe(`${env}_FILE names a file that holds nothing.`);
});

test("a wrong secret is refused without showing it", async () => {
  const file = join(folder, "url");
  await writeFile(file, secret);
  for (const env of [{ DATABASE_URL: secret }, { DATABASE_URL_FILE: file }]) {
    expect(refusalOf(env)).toMatch(/^DATABASE_URL must look like/);
    expect(refusalOf(env)).not.toContain(secret);
  }
});

test("what the graphs' own assistants begin with is JSON by graph", () => {
  const seeds = { support: { configurable: { tone: "warm" }, context: { tenant: "acme" } } };
  expect(readConfig({ LANGGRAPH_CONFIG: JSON.stringify(seeds) }).assistantSeeds).toEqual(seeds);
  expect(readConfig({ LANGGRAPH_CONFIG: "" }).assistantSeeds).toBeUndefined();
  for (const wrong of ["{", "[]", "7", "null", '{"support": 7}', '{"support": [1]}'])
    expect(refusalOf({ LANGGRAPH_CONFIG: wrong })).toBe(
      "LANGGRAPH_CONFIG must be a JSON object of one object for each graph.",
    );
});

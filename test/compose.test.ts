// docker-compose.yml says what the Compose Specification allows, in names that Holdfast knows.
import { readFileSync } from "node:fs";
import { Ajv } from "ajv";
import { expect, test } from "vitest";
import { parse } from "yaml";
import { readConfig, settings } from "../server/config.ts";

interface Service {
  build?: string;
  environment: Record<string, string>;
  ports?: string[];
  volumes?: string[];
  depends_on?: Record<string, unknown>;
  profiles?: string[];
  stop_grace_period: string;
}

interface Compose {
  services: { holdfast: Service; postgres: Service; redis: Service };
  volumes: Record<string, null>;
}

const text = readFileSync("docker-compose.yml", "utf8");
const schema: object = JSON.parse(readFileSync("test/support/compose.schema.json", "utf8"));
const matches = new Ajv({ strict: false, allErrors: true }).compile(schema);

function complaintsAbout(yaml: string): string[] {
  return matches(parse(yaml)) ? [] : (matches.errors ?? []).map(({ instancePath }) => instancePath);
}

/** The file as Compose reads it when no variable is set: `${NAME:-default}` is its default. */
function compose(): Compose {
  // The schema, which the first test checks, gives it this form.
  return parse(text.replaceAll(/\$\{[A-Z_]+:-([^}]*)\}/g, "$1")) as Compose;
}

test("docker-compose.yml is valid", () => {
  expect(complaintsAbout(text)).toEqual([]);
});

test.each([
  ["healthcheck:", "health_check:"],
  ["stop_grace_period: 40s", "stop_grace_period: 40"],
  ["condition: service_healthy", "condition: healthy"],
  ["    build: .\n", ""],
  ["services:", "service:"],
  ["retries: 30", "retries: many"],
])("a slip is seen: %j written as %j", (right, wrong) => {
  expect(text).toContain(right);
  expect(complaintsAbout(text.replace(right, wrong))).not.toEqual([]);
});

test("every variable given to Holdfast is one of its settings, and the server accepts them together", () => {
  const { environment } = compose().services.holdfast;
  const known = new Set(Object.values(settings).map(({ env }) => env));
  expect(Object.keys(environment).filter((name) => !known.has(name))).toEqual([]);
  expect(readConfig(environment)).toMatchObject({ host: "0.0.0.0", port: 8123 });
});

test("Holdfast is given the address, the password and the database of the other container", () => {
  const { holdfast, postgres } = compose().services;
  const url = new URL(holdfast.environment["DATABASE_URL"] ?? "");
  expect(url.hostname in (holdfast.depends_on ?? {})).toBe(true);
  expect(url.password).toBe(postgres.environment["POSTGRES_PASSWORD"]);
  expect(url.pathname).toBe(`/${postgres.environment["POSTGRES_DB"]}`);
  // A user named like our schema would find it in his search_path; see embedded/cluster.ts.
  expect(url.username).toBe("postgres");
});

test("Redis is started where its profile is asked for, reached by Holdfast alone, and used only if it is named", () => {
  const { holdfast, redis } = compose().services;
  expect([redis.profiles, redis.ports]).toEqual([["redis"], undefined]);
  expect(readConfig(holdfast.environment).cacheUrl).toBeUndefined();
  expect(text).toContain("HOLDFAST_CACHE_URL=redis://redis:6379 docker compose --profile redis up");
});

test("the published port is the one Holdfast listens on, on this machine only", () => {
  const { holdfast } = compose().services;
  expect(holdfast.ports).toEqual([`127.0.0.1:8123:${readConfig(holdfast.environment).port}`]);
});

test("the container is given longer to stop than Holdfast takes to drain", () => {
  const { holdfast } = compose().services;
  const graceMs = Number.parseInt(holdfast.stop_grace_period, 10) * 1000;
  expect(graceMs).toBeGreaterThan(readConfig(holdfast.environment).drainMs + 10_000);
});

test("the database's volume is declared, and it is where that image keeps its data", () => {
  const { services, volumes } = compose();
  expect(services.postgres.volumes).toEqual(["postgres:/var/lib/postgresql/data"]);
  expect(Object.keys(volumes)).toEqual(["postgres"]);
});

/** With which the command itself starts Node.js. */
const nodeFlags = (): string[] =>
  /^#!.*/.exec(readFileSync("server/cli.ts", "utf8"))?.[0].match(/--\S+/g) ?? [];

test("whatever starts a server starts it with the same flags", () => {
  const { scripts } = JSON.parse(readFileSync("package.json", "utf8")) as { scripts: Record<string, string> };
  const measured = readFileSync("bench/engine/processes.ts", "utf8");
  expect(nodeFlags().length).toBeGreaterThan(0);
  expect(scripts["start"]).toContain(`node ${nodeFlags().join(" ")} `);
  expect(scripts["holdfast"]).toContain(`node ${nodeFlags().join(" ")} `);
  expect(measured).toContain(
    nodeFlags()
      .map((flag) => JSON.stringify(flag))
      .join(", "),
  );
});

test("the image runs the compiled server, not as root, and holds no secret", () => {
  const dockerfile = readFileSync("Dockerfile", "utf8");
  const last = dockerfile.slice(dockerfile.lastIndexOf("\nFROM "));
  const command = JSON.stringify(["node", ...nodeFlags(), "dist/server/cli.js", "serve"]).replaceAll(
    ",",
    ", ",
  );
  expect(last).toContain(`CMD ${command}`);
  expect(last).toMatch(/^USER node$/m);
  expect(dockerfile).not.toMatch(/API_KEY|PASSWORD|DATABASE_URL=|_TOKEN/);
});

test("the image serves the compiled names of all graphs", () => {
  const dockerfile = readFileSync("Dockerfile", "utf8");
  const [, pattern = "", by = "", flags = ""] = /sed 's\/(.*?)\/(.*?)\/(\w*)'/.exec(dockerfile) ?? [];
  expect(pattern).not.toBe("");
  const written = readFileSync("langgraph.json", "utf8").replaceAll("\n", " ");
  const compiled = flags.includes("g")
    ? written.replaceAll(new RegExp(pattern, "g"), by)
    : written.replace(new RegExp(pattern), by);
  const { graphs } = JSON.parse(compiled) as { graphs: Record<string, string> };
  expect(Object.values(graphs)).toEqual(Object.values(graphs).map(() => expect.stringMatching(/\.js:\w+$/)));
  expect(Object.keys(graphs).length).toBeGreaterThan(1);
});

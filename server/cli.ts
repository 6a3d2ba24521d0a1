#!/usr/bin/env -S node --max-semi-space-size=32 --heap-growing-percent=50
// The commands: parse, call, print. Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a problem was found, 130 interrupted.
// What a command needs is loaded when it runs: help and a wrong setting answer at once.
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { Argument, Command, CommanderError, InvalidArgumentError, Option } from "commander";
import { addToEnvironment, readConfig, settings } from "./config.ts";
import type { Config } from "./config.ts";
import { ConfigInvalid, messageOf } from "./errors.ts";
import { uuidv7 } from "./ids.ts";
import { ownVersion, requirePeers } from "./peers.ts";
import { readGraphsFile } from "./runs/graph/graphs.ts";
import type { GraphsFile } from "./runs/graph/graphs.ts";
import { tellStrangeExit } from "./runs/graph/places.ts";

interface Shared {
  readonly config?: string;
  readonly host?: string;
  readonly port?: string;
  readonly https?: true;
}

interface ChaosCommand extends Shared {
  readonly graph: string;
  readonly input?: string;
  readonly runs: string;
  readonly instances: string;
  readonly faults: string;
  readonly seed?: string;
  readonly json?: true;
}

const EXIT_CODES = `
Exit codes: 0 done · 1 failed · 2 wrong usage · 3 a problem was found · 130 interrupted
Settings come from the environment; docs/configuration.md lists them all.`;

const say = (text: string): void => console.log(text);
// A reader that has seen enough (`holdfast --help | head`) is no failure.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
});

// A module of the project that ends the process would end it without a word.
process.on("exit", tellStrangeExit);

function program(): Command {
  const cli = new Command("holdfast")
    .description("The durable LangGraph.js server: Postgres is the only thing to operate.")
    .version(ownVersion)
    .addHelpText("after", EXIT_CODES)
    .exitOverride()
    .hook("preAction", () => requirePeers());
  serving(
    cli
      .command("dev")
      .description("serve for development: embedded PostgreSQL, sample documents, offline model"),
  )
    .option("--watch", "start again when a file changes that was imported; runs go on")
    .action((options: Shared & { watch?: true }) => (options.watch ? watch() : dev(options)));
  serving(cli.command("serve").description("serve the graphs of langgraph.json on DATABASE_URL"))
    .option("--no-worker", "answer HTTP only; `holdfast work` executes the runs")
    .action((options: Shared & { worker: boolean }) => serve(options, options.worker ? "all" : "http"));
  cli
    .command("work")
    .description("execute runs without answering HTTP")
    .option("--config <file>", "langgraph.json that names the graphs (HOLDFAST_CONFIG)")
    .action((options: Shared) => serve(options, "worker"));
  cli
    .command("migrate")
    .description("bring the database's schema up to date")
    .option("--check", "change nothing; exit with 3 when something is pending")
    .option("--json", "print one JSON object")
    .action(async (options: { check?: true; json?: true }) => {
      const { migrateDatabase } = await import("./commands/migrate.ts");
      process.exitCode = await migrateDatabase(await settle(), { ...options, say });
    });
  cli
    .command("index")
    .description("index documents (.md .txt .html .pdf .jsonl) so that graphs can search them")
    .argument("<path...>", "files or folders")
    .option("--collection <name>", "collection to index into (HOLDFAST_COLLECTION)", collectionName)
    .option("--json", "print one JSON object")
    .action(async (paths: string[], options: { collection?: string; json?: true }) => {
      const { indexDocuments } = await import("./commands/index-documents.ts");
      process.exitCode = await indexDocuments(await settle(), { ...options, paths, say });
    });
  webhookCommands(
    cli.command("webhooks").description("call-backs of runs: list them, send parked ones again"),
  );
  keyCommands(cli.command("keys").description("the keys that seal what is stored: make, rotate, shred"));
  budgetCommands(cli.command("budget").description("what calls to models may cost: limits, balances, usage"));
  auditCommands(cli.command("audit").description("the audit log: list its entries, verify its chain"));
  cli
    .command("doctor")
    .description("check settings, database, graphs, documents and model")
    .option("--config <file>", "langgraph.json to check")
    .option("--json", "print one JSON object")
    .action(async (options: Shared & { json?: true }) => {
      const { doctor } = await import("./commands/doctor.ts");
      // A langgraph.json that cannot be read is what it looks for.
      const config = await settle(options).catch(() => readConfig(undefined, overrides(options)));
      process.exitCode = await doctor(config, { ...options, say });
    });
  cli
    .command("chaos")
    .description("kill servers under a graph of yours on a scratch database, and check every promise")
    .requiredOption("--graph <id>", "graph of langgraph.json to run")
    .option("--config <file>", "langgraph.json that names the graphs (HOLDFAST_CONFIG)")
    .option("--input <json>", "input of each run")
    .option("--runs <number>", "runs at once, for each fault", numeric, "20")
    .option("--instances <number>", "servers", numeric, "3")
    .option("--faults <names>", "kill9, zombie, database, divided by commas", "kill9,zombie,database")
    .option("--seed <number>", "makes the same choices again", numberTo(Number.MAX_SAFE_INTEGER))
    .option("--json", "print one JSON object")
    .action(async (options: ChaosCommand) => {
      const { chaos } = await import("./commands/chaos.ts");
      const { runs, instances, seed, config: _config, ...rest } = options;
      const numbers = { runs: Number(runs), instances: Number(instances) };
      const chosen = { ...rest, ...numbers, ...(seed === undefined ? {} : { seed: Number(seed) }), say };
      process.exitCode = await chaos(await settle(options), chosen);
    });
  return cli;
}

function keyCommands(keys: Command): void {
  const now = new Date().toISOString().slice(0, 10);
  keys
    .command("new")
    .description("make a key and print it as a line of HOLDFAST_KEYS_FILE")
    .option("--name <name>", "name of the key", `key-${now}`)
    .option("--file <file>", "put it at the end of this file instead; a new file is made for its owner alone")
    .action(async (options: { name: string; file?: string }) => {
      const { makeKey } = await import("./commands/keys.ts");
      process.exitCode = await makeKey({ ...options, say });
    });
  keys
    .command("status")
    .description("say which keys wrap how many data keys, and whether the database is sealed")
    .option("--json", "print one JSON object")
    .action(async (options: { json?: true }) => {
      const { showKeys } = await import("./commands/keys.ts");
      process.exitCode = await showKeys(await settle(), { ...options, say });
    });
  keys
    .command("rotate")
    .description("wrap all data keys with the first key of the ring, while servers run")
    .option("--json", "print one JSON object")
    .action(async (options: { json?: true }) => {
      const { rotateKeys } = await import("./commands/keys.ts");
      process.exitCode = await rotateKeys(await settle(), { ...options, say });
    });
  keys
    .command("seal")
    .description("seal what a database holds already; no server may run meanwhile")
    .option("--json", "print one JSON object")
    .action(async (options: { json?: true }) => {
      const { sealAll } = await import("./commands/keys.ts");
      process.exitCode = await sealAll(await settle(), { ...options, say });
    });
  keys
    .command("shred")
    .description("delete what is sealed together with its keys, so that older copies cannot be read either")
    .addArgument(new Argument("<subject>", "what").choices(["thread", "namespace", "tenant"]))
    .argument("<name>", "id of the thread, labels of the namespace divided by dots, or the tenant")
    .option("--yes", "shred a whole tenant")
    .option("--json", "print one JSON object")
    .action(async (subject: "thread", name: string, options: { yes?: true; json?: true }) => {
      const { shredKeys } = await import("./commands/keys.ts");
      process.exitCode = await shredKeys(await settle(), { ...options, subject, name, say });
    });
}

function webhookCommands(webhooks: Command): void {
  webhooks
    .command("list")
    .description("list webhooks, newest first")
    .addOption(new Option("--state <state>", "only these").choices(["pending", "delivered", "parked"]))
    .option("--limit <number>", "at most this many", numeric, "100")
    .option("--json", "print one JSON array")
    .action(async ({ limit, ...options }: { state?: "pending"; limit: string; json?: true }) => {
      const { showWebhooks } = await import("./commands/webhooks.ts");
      process.exitCode = await showWebhooks(await settle(), { ...options, limit: Number(limit), say });
    });
  webhooks
    .command("replay")
    .description("send parked webhooks again, under the same ids")
    .argument("[id...]", "ids of webhooks")
    .option("--all", "all that are parked")
    .option("--json", "print one JSON object")
    .action(async (ids: string[], options: { all?: true; json?: true }) => {
      const { resendWebhooks } = await import("./commands/webhooks.ts");
      process.exitCode = await resendWebhooks(await settle(), { ...options, ids, say });
    });
}

function budgetCommands(budget: Command): void {
  budget
    .command("list")
    .description("list budgets with what is spent and free in the period that runs")
    .option("--json", "print one JSON array")
    .action(async (options: { json?: true }) => {
      const { showBudgets } = await import("./commands/budget.ts");
      process.exitCode = await showBudgets(await settle(), { ...options, say });
    });
  budget
    .command("set")
    .description("make a budget, or change the limit of the one that is there")
    .requiredOption("--scope <scope>", "tenant, user, assistant or thread")
    .option("--of <id>", "whose: a user's identity or an id; left out: each one for himself")
    .requiredOption("--per <period>", "minute, hour, day, month or total")
    .option("--usd <amount>", "the limit in US dollars")
    .option("--tokens <number>", "the limit in tokens")
    .option("--json", "print one JSON object")
    .action(
      async (options: {
        scope: string;
        of?: string;
        per: string;
        usd?: string;
        tokens?: string;
        json?: true;
      }) => {
        const { setBudget } = await import("./commands/budget.ts");
        process.exitCode = await setBudget(await settle(), { ...options, say });
      },
    );
  budget
    .command("delete")
    .description("delete a budget; what it counted stays in the ledger")
    .argument("<id>", "id of the budget")
    .action(async (id: string) => {
      const { removeBudget } = await import("./commands/budget.ts");
      process.exitCode = await removeBudget(await settle(), { id, say });
    });
  budget
    .command("usage")
    .description("what calls to models were and cost")
    .option("--by <group>", "day, model, node, thread, assistant or user", "day")
    .option("--days <number>", "of the last days", numeric, "30")
    .option("--json", "print one JSON array")
    .action(async ({ days, ...options }: { by: string; days: string; json?: true }) => {
      const { showUsage } = await import("./commands/budget.ts");
      process.exitCode = await showUsage(await settle(), { ...options, days: Number(days), say });
    });
}

function auditCommands(audit: Command): void {
  audit
    .command("list")
    .description("list entries, newest first")
    .option("--limit <number>", "at most this many", numeric, "100")
    .option("--json", "print one JSON array")
    .action(async ({ limit, ...options }: { limit: string; json?: true }) => {
      const { showAudit } = await import("./commands/audit.ts");
      process.exitCode = await showAudit(await settle(), { ...options, limit: Number(limit), say });
    });
  audit
    .command("verify")
    .description("look for entries that were changed, taken away or put in; changes nothing")
    .option("--head <hash>", "a hash that the chain must hold, from the log of a server")
    .option("--json", "print one JSON object")
    .action(async (options: { head?: string; json?: true }) => {
      const { verifyAudit } = await import("./commands/audit.ts");
      process.exitCode = await verifyAudit(await settle(), { ...options, say });
    });
}

/** What HOLDFAST_COLLECTION takes; an empty one is a variable of the shell that nobody set. */
function collectionName(text: string): string {
  if (settings.collection.schema.safeParse(text).success) return text;
  throw new InvalidArgumentError("It must have 1 to 200 characters.");
}

const numberTo =
  (most: number) =>
  (text: string): string => {
    if (/^\d{1,16}$/.test(text) && Number(text) <= most) return text;
    throw new InvalidArgumentError(`It must be a whole number up to ${most}.`);
  };
const numeric = numberTo(99_999);

function serving(command: Command): Command {
  return command
    .option("--config <file>", "langgraph.json that names the graphs (HOLDFAST_CONFIG)")
    .option("--host <address>", "address to listen on (HOLDFAST_HOST)")
    .option("--port <number>", "port to listen on (PORT)", numberTo(65_535))
    .option("--https", "speak HTTPS (HOLDFAST_HTTPS)");
}

/** Becomes Node.js's own watcher, which starts this command without the option. */
function watch(): void {
  if (process.execve === undefined)
    throw new ConfigInvalid(
      "--watch needs Node.js 24 on Linux or macOS; start holdfast dev by hand instead.",
    );
  const args = process.argv.slice(1).filter((word) => word !== "--watch");
  // Nobody waits for the end of an answer: the next process goes on with it.
  addToEnvironment({ HOLDFAST_DRAIN_MS: "0" });
  const flags = [...process.execArgv, "--watch", "--watch-preserve-output"];
  process.execve(process.execPath, [process.execPath, ...flags, ...args]);
}

async function dev(options: Shared): Promise<never> {
  const { config, graphs } = await configure(options);
  const { serveUntilStopped } = await import("./process.ts");
  const { indexSamples } = await import("./commands/index-documents.ts");
  say(`Holdfast: graphs of ${graphs.path}`);
  const prepare = indexSamples(config, { graphsPath: graphs.path, say });
  const allowed = { mayModelBeOffline: true, maySelfSign: true };
  return serveUntilStopped({ config, graphs, say, ...allowed, prepare }, ({ url, graphIds }) => {
    say(`\nReady on ${url ?? ""} with graph ${graphIds.join(", ")}. Try:\n`);
    say(exampleFor(url ?? "", graphIds[0] ?? ""));
  });
}

async function serve(options: Shared, role: "all" | "http" | "worker"): Promise<never> {
  const { config, graphs } = await configure(options);
  const { serveUntilStopped } = await import("./process.ts");
  return serveUntilStopped({ config, graphs, say, mayModelBeOffline: false, role }, ({ url, graphIds }) => {
    say(`Ready${url ? ` on ${url}` : " to work"} with graph ${graphIds.join(", ")}.`);
  });
}

/** Settings, with what the command line and langgraph.json's env add. */
async function configure(options: Shared): Promise<{ config: Config; graphs: GraphsFile }> {
  const over = overrides(options);
  const graphs = await readGraphsFile(readConfig(undefined, over).graphs);
  addToEnvironment(graphs.env);
  return { config: readConfig(undefined, over), graphs };
}

/** Settings for a command that needs no graphs: langgraph.json may be missing, but its env counts if it is there. */
async function settle(options: Shared = {}): Promise<Config> {
  const config = readConfig(undefined, overrides(options));
  return existsSync(config.graphs) ? (await configure(options)).config : config;
}

function overrides({ config, host, port, https }: Shared): Record<string, string | undefined> {
  const path = config && resolve(config);
  return { HOLDFAST_CONFIG: path, HOLDFAST_HOST: host, PORT: port, HOLDFAST_HTTPS: https && "on" };
}

function exampleFor(url: string, graphId: string): string {
  const body = {
    assistant_id: graphId,
    input: { messages: [{ role: "user", content: "What does Holdfast keep in Postgres?" }] },
    stream_mode: ["messages-tuple"],
    if_not_exists: "create",
  };
  // The certificate of dev is known to nobody.
  const insecure = url.startsWith("https:") ? "-k " : "";
  return `curl -N ${insecure}${url}/threads/${uuidv7()}/runs/stream -H 'content-type: application/json' -d '${JSON.stringify(body)}'\n`;
}

try {
  await program().parseAsync();
} catch (error) {
  if (error instanceof CommanderError) process.exitCode = error.exitCode === 0 ? 0 : 2;
  else {
    console.error(`holdfast: ${messageOf(error)}`);
    process.exitCode = 1;
  }
}
// Graphs and apps that were loaded may have left timers and connections of their own, which would keep the process.
process.stdout.write("", () => process.exit(process.exitCode ?? 0));

// holdfast doctor: looks at each thing a server needs and says what to do about what is wrong. Changes nothing.
import { deadline } from "../clock.ts";
import type { Config } from "../config.ts";
import { messageOf } from "../errors.ts";
import { addressReader } from "../http/callers/address.ts";
import { corsPolicyOf } from "../http/edge/cors.ts";
import { loadCustomApp } from "../http/edge/custom-app.ts";
import { certificateOf } from "../http/edge/tls.ts";
import { openCatalogue } from "../models/catalogue.ts";
import { openEgress } from "../models/egress.ts";
import { TOKENISES_UNSEALED, openPrivacy, plainGuard } from "../privacy/guard.ts";
import { loadAuthority } from "../runs/auth.ts";
import { lendLog } from "../runs/graph/graph-log.ts";
import { loadGraphs, readGraphsFile } from "../runs/graph/graphs.ts";
import { openEmbedder } from "../runs/graph/store-index.ts";
import { reconcile } from "../storage/budgets.ts";
import type { Database } from "../storage/database.ts";
import { listCollections } from "../storage/documents/collections.ts";
import { requireKeks, sealingOf } from "../storage/keys/sealing.ts";
import { checkSchema, findServer, mayWrite } from "../storage/migrate.ts";
import { openDatabase } from "../storage/open.ts";
import { checkCounters } from "../storage/open-counters.ts";
import { defaultScope } from "../storage/scope.ts";
import { openLog } from "../telemetry/log.ts";

interface Finding {
  readonly check: string;
  readonly isFine: boolean;
  readonly detail: string;
}

const MODEL_MS = 5000;

/** @returns the exit code: 0 when all is well, 3 when a problem was found */
export async function doctor(
  config: Config,
  options: { json?: boolean; say: (text: string) => void },
): Promise<number> {
  const findings = [
    await find("node", () => `Node ${process.versions.node}`),
    await find("settings", () => checkSettings(config)),
    await find("graphs", async () => {
      const file = await readGraphsFile(config.graphs);
      lendLog(openLog(config.logLevel), plainGuard());
      const graphs = await loadGraphs(file, options.json ? undefined : options.say);
      if (file.authPath !== undefined) await loadAuthority(file.path, file.authPath);
      await openEmbedder(file, { timeoutMs: MODEL_MS, hasEndpoint: true });
      if (file.http.app !== undefined) await loadCustomApp(file.path, file.http.app);
      return [...graphs.keys()].join(", ");
    }),
    ...(await findInDatabase(config)),
    await find("model", () => askModel(config)),
  ];
  const problems = findings.filter(({ isFine }) => !isFine);
  if (options.json) options.say(JSON.stringify({ ok: problems.length === 0, findings }));
  else
    for (const { check, isFine, detail } of findings)
      options.say(`${isFine ? "ok     " : "PROBLEM"} ${check}: ${detail}`);
  return problems.length > 0 ? 3 : 0;
}

async function findInDatabase(config: Config): Promise<Finding[]> {
  try {
    const { database, close } = await openDatabase(config);
    try {
      const basis = [
        await find("database", () => describe(database)),
        await find("schema", () => describeSchema(database)),
      ];
      // The others read tables, which are not there or not to be read: that would be told again for each.
      if (basis.at(-1)?.isFine === false) return basis;
      return [
        ...basis,
        await find("sealing", () => describeSealing(database)),
        await find("budgets", () => describeBudgets(database)),
        await find("documents", async () => {
          const collections = await listCollections(database, defaultScope);
          const one = collections.find(({ name }) => name === config.collection);
          return one
            ? `${one.documents} in ${one.name}`
            : `none in ${config.collection}: holdfast index <path> adds some for graphs that search them`;
        }),
      ];
    } finally {
      await close();
    }
  } catch (error) {
    return [{ check: "database", isFine: false, detail: messageOf(error) }];
  }
}

/** What a server would refuse to start for, without starting anything. */
async function checkSettings(config: Config): Promise<string> {
  const { privacy, http } = await readGraphsFile(config.graphs);
  const { tokenises } = openPrivacy({ ...privacy, names: config.privacyNames });
  if (tokenises && config.keys === undefined) throw new Error(TOKENISES_UNSEALED);
  openCatalogue(config);
  await certificateOf(config, false);
  checkCounters(config);
  await openEgress({ allow: config.egressAllow }).close();
  addressReader(config.trustedProxies);
  corsPolicyOf(config.corsOrigins, http.cors);
  return "as a server takes them";
}

async function find(check: string, look: () => string | Promise<string>): Promise<Finding> {
  try {
    return { check, isFine: true, detail: await look() };
  } catch (error) {
    return { check, isFine: false, detail: messageOf(error) };
  }
}

async function describe(database: Database): Promise<string> {
  const { version, isReadOnly } = await findServer(database);
  if (isReadOnly)
    throw new Error("it takes no writes: DATABASE_URL leads to a standby, or to a user who may only read");
  return `PostgreSQL ${version}`;
}

async function describeSchema(database: Database): Promise<string> {
  const { pending, current } = await checkSchema(database);
  if (pending.length > 0) throw new Error(`pending: ${pending.join(", ")}; run holdfast migrate`);
  if (!(await mayWrite(database)))
    throw new Error("the user of DATABASE_URL may not read and write the tables of Holdfast");
  return current;
}

/** Also says what a server would refuse to start for. */
async function describeSealing(database: Database): Promise<string> {
  const sealing = await sealingOf(database);
  if (sealing === "begun") throw new Error("begun: stop all servers and run holdfast keys seal");
  if (!database.seals.isOn && sealing === "on") throw new Error("sealed, and HOLDFAST_KEYS is not set");
  if (!database.seals.isOn) return "off: set HOLDFAST_KEYS_FILE to encrypt what is stored";
  await requireKeks(database);
  return sealing === "on"
    ? `on, new keys are wrapped by ${database.seals.ring.current}`
    : "off: the next start seals an empty database; run holdfast keys seal on one that holds something";
}

/** Whether the books are right: counters equal the ledger, and no call is open that nobody will close. */
async function describeBudgets(database: Database): Promise<string> {
  const { drift, open, overdue, excess } = await reconcile(database);
  const [first] = drift;
  if (first)
    throw new Error(
      `${drift.length} counters differ from the sum of their entries, first that of period ${first.period_id}: somebody wrote to holdfast.budget_periods past the server`,
    );
  if (overdue > 0)
    throw new Error(`${overdue} calls to models are open past their time: no server runs that closes them`);
  const over =
    excess.periods > 0 ? `, ${excess.periods} periods above a limit that was lowered or overbilled` : "";
  return `the ledger agrees, ${open} calls under way${over}`;
}

async function askModel({ openaiApiKey, openaiBaseUrl }: Config): Promise<string> {
  if (!openaiApiKey && !openaiBaseUrl)
    return "none configured: holdfast dev answers offline, holdfast serve needs OPENAI_API_KEY";
  const base = (openaiBaseUrl ?? "https://api.openai.com/v1").replace(/\/$/, "");
  const response = await fetch(`${base}/models`, {
    headers: { authorization: `Bearer ${openaiApiKey ?? "none"}` },
    signal: deadline(MODEL_MS),
  });
  if (response.status === 401) throw new Error(`${base} refuses the key in OPENAI_API_KEY (401)`);
  if (!response.ok) throw new Error(`${base} answers ${response.status}`);
  return `${base} answers`;
}

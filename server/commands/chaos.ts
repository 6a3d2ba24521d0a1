// holdfast chaos: breaks a cluster of real servers that runs the user's own graph, and says which promises held.
// Everything happens on a database made for it; what the graph itself calls is called for real.
import { resolve } from "node:path";
import { env } from "node:process";
import type { Config } from "../config.ts";
import { startOfflineModel } from "../models/offline/server.ts";
import { readGraphsFile } from "../runs/graph/graphs.ts";
import { ask } from "./chaos/ask.ts";
import type { Move } from "./chaos/audit.ts";
import { startCluster } from "./chaos/cluster.ts";
import { afterFirst, backend, calm, databaseCrash, kill9, zombie } from "./chaos/faults.ts";
import type { Fault } from "./chaos/faults.ts";
import { ENDS_WELL, LAWS } from "./chaos/laws.ts";
import { quantile } from "./chaos/quantile.ts";
import { seeded } from "./chaos/random.ts";
import { playRound } from "./chaos/round.ts";
import type { RoundResult, Stage } from "./chaos/round.ts";
import { givenServer, openScratch, ownServer } from "./chaos/scratch.ts";
import type { OwnServer } from "./chaos/scratch.ts";
import { indexSamples } from "./index-documents.ts";

export interface ChaosOptions {
  readonly graph: string;
  /** The runs' input as JSON text. */
  readonly input?: string;
  /** How many runs are asked for at once, for each fault. */
  readonly runs: number;
  readonly instances: number;
  /** Names divided by commas. */
  readonly faults: string;
  /** Makes the same choices again. */
  readonly seed?: number;
  readonly json?: boolean;
  readonly say: (text: string) => void;
}

interface FaultReport {
  readonly fault: string;
  readonly runs: number;
  /** Runs that were running where the fault struck. */
  readonly struck: number;
  /** Milliseconds until those that changed hands ran again. */
  readonly takeover_ms: { readonly p50: number | null; readonly p99: number | null };
}

interface LawReport {
  readonly law: string;
  /** Null: does not apply to this graph, because it does not even hold when nothing is broken. */
  readonly broken: number | null;
  readonly examples: readonly string[];
}

type FaultName = "kill9" | "zombie" | "database";

const NAMES: readonly FaultName[] = ["kill9", "zombie", "database"];
const DEFAULT_INPUT = '{"messages":[{"role":"user","content":"What do you promise?"}]}';
// Others take the runs of a silent server over after 15 s.
const SILENCE_MS = 17_000;
const BACKENDS = 8;
const CUT_CHANCE = 0.02;
// A graph that is over in a moment is hard to hit.
const MOST_ROUNDS = 5;
const EXAMPLES = 3;

/**
 * @returns the exit code: 0 when every promise held, 1 when the graph does not get to its end by itself, 2 for what an
 *   option does not take, 3 otherwise
 */
export async function chaos(config: Config, options: ChaosOptions): Promise<number> {
  const misuse = misuseOf(options, Object.keys((await readGraphsFile(config.graphs)).graphs));
  if (misuse !== undefined) {
    options.say(misuse);
    return 2;
  }
  const names = namesIn(options.faults) as FaultName[];
  const input: unknown = JSON.parse(options.input ?? DEFAULT_INPUT);
  const seed = options.seed ?? Math.floor(Math.random() * 2 ** 31);
  await using parts = new AsyncDisposableStack();
  const own = config.databaseUrl ? undefined : parts.adopt(await ownServer(), (server) => server.stop());
  const stage = await buildStage(config, { ...options, input, seed, own }, parts);

  const progress = options.json ? (): void => undefined : options.say;
  progress(`${options.instances} servers on a database made for this; seed ${seed}.`);
  const rehearsal = await playRound(stage, { clients: 1, fault: calm });
  const [run] = rehearsal.facts.runs;
  if (run?.state !== "success") {
    const reason = run?.error ? `${run.error.error}: ${run.error.message}` : "it was not accepted";
    options.say(
      `Graph ${options.graph} fails without any fault (${reason}); choose an --input it can work with.`,
    );
    return 1;
  }
  const moment = afterFirst(durationOf(rehearsal.facts.moves));
  const faults: Record<FaultName, Fault> = {
    kill9: kill9(moment),
    zombie: zombie(moment, SILENCE_MS),
    database: own ? databaseCrash(moment, () => own.crash()) : backend(moment, BACKENDS),
  };
  const rounds: RoundResult[] = [];
  const reports: FaultReport[] = [];
  for (const name of names) {
    const played = await strikeWith(stage, faults[name], options.runs);
    rounds.push(...played);
    const report = reportOf(name, played, options.runs);
    reports.push(report);
    progress(sentenceOf(report));
  }
  return conclude(options, { seed, reports, laws: lawsOf(rehearsal, rounds) });
}

async function buildStage(
  config: Config,
  options: Omit<ChaosOptions, "input"> & { input: unknown; seed: number; own: OwnServer | undefined },
  parts: AsyncDisposableStack,
): Promise<Stage> {
  const { graph, input, own, instances } = options;
  // Databases are not made through a pooler.
  const url = config.databaseDirectUrl ?? config.databaseUrl ?? "";
  const scratch = await openScratch(own ?? givenServer(url), config.keys);
  parts.defer(() => scratch.close());
  await indexSamples(config, { graphsPath: resolve(config.graphs), say: () => undefined })(scratch.database);
  const hasModel = config.openaiApiKey !== undefined || config.openaiBaseUrl !== undefined;
  const offline = hasModel ? undefined : parts.adopt(await startOfflineModel(), (model) => model.stop());
  const cluster = await startCluster({
    databaseUrl: scratch.url,
    graphs: config.graphs,
    environment: {
      ...env,
      ...(offline ? { OPENAI_BASE_URL: offline.url, OPENAI_API_KEY: "offline" } : {}),
      HOLDFAST_HEARTBEAT_MS: "1000",
    },
    size: instances,
  });
  parts.defer(async () => void (await cluster.stop()));
  const mayJump = own !== undefined;
  return {
    cluster,
    database: scratch.database,
    random: seeded(options.seed),
    ask: (random) =>
      ask(
        { address: () => cluster.address(random), random, cutChance: CUT_CHANCE, mayJump },
        { assistant: graph, input, modes: ["messages-tuple", "values"] },
      ),
    laws: [...LAWS, ENDS_WELL],
    mayJump,
  };
}

/** Rounds until a run was struck. */
async function strikeWith(stage: Stage, fault: Fault, clients: number): Promise<RoundResult[]> {
  const rounds: RoundResult[] = [];
  while (rounds.length < MOST_ROUNDS && !rounds.some(({ trials }) => trials > 0)) {
    rounds.push(await playRound(stage, { clients, fault }));
  }
  return rounds;
}

function reportOf(fault: string, rounds: readonly RoundResult[], clients: number): FaultReport {
  const times = rounds.flatMap(({ takeovers }) => takeovers.map(({ ms }) => Math.round(ms)));
  return {
    fault,
    runs: rounds.length * clients,
    struck: rounds.reduce((sum, { trials }) => sum + trials, 0),
    takeover_ms: { p50: quantile(times, 0.5) ?? null, p99: quantile(times, 0.99) ?? null },
  };
}

function lawsOf(rehearsal: RoundResult, rounds: readonly RoundResult[]): LawReport[] {
  return rehearsal.verdicts.map(({ title, broken: before }) => {
    if (before.length > 0) return { law: title, broken: null, examples: before.slice(0, EXAMPLES) };
    const broken = rounds.flatMap(
      ({ verdicts }) => verdicts.find((verdict) => verdict.title === title)?.broken ?? [],
    );
    return { law: title, broken: broken.length, examples: broken.slice(0, EXAMPLES) };
  });
}

function conclude(
  { json, say }: ChaosOptions,
  { seed, reports, laws }: { seed: number; reports: readonly FaultReport[]; laws: readonly LawReport[] },
): number {
  const isKept = laws.every(({ broken }) => !broken);
  if (json) say(JSON.stringify({ ok: isKept, seed, faults: reports, laws }));
  else {
    for (const { law, broken, examples } of laws) {
      if (broken === null)
        say(`skipped  ${law}: not so with this graph even when nothing breaks: ${examples[0]}`);
      else if (broken === 0) say(`ok       ${law}`);
      else say(`BROKEN   ${law}: ${broken} times, such as\n           ${examples.join("\n           ")}`);
    }
  }
  return isKept ? 0 : 3;
}

function sentenceOf({ fault, runs, struck, takeover_ms: { p50 } }: FaultReport): string {
  if (struck === 0)
    return `${fault}: struck none of ${runs} runs, they are over too soon; give them more to do.`;
  const again = p50 === null ? "" : `; they ran again after ${(p50 / 1000).toFixed(1)} s (median)`;
  return `${fault}: struck ${struck} of ${runs} runs${again}.`;
}

/** Milliseconds from the first start of a run to its end. */
function durationOf(moves: readonly Move[]): number {
  const begun = moves.find(({ state }) => state === "running")?.at ?? 0;
  return Math.max(1, (moves.at(-1)?.at ?? 0) - begun);
}

/** What of the options cannot be done, as a sentence. */
function misuseOf(options: ChaosOptions, graphIds: readonly string[]): string | undefined {
  const { graph, input = DEFAULT_INPUT, runs, instances, faults } = options;
  const stranger = namesIn(faults).find((name) => !(NAMES as readonly string[]).includes(name));
  if (stranger !== undefined)
    return `${stranger || "Nothing"} is not a fault; --faults takes ${NAMES.join(", ")}.`;
  if (!isCount(runs, 1)) return "--runs must be a whole number, at least 1.";
  // One must be left to go on.
  if (!isCount(instances, 2)) return "--instances must be a whole number, at least 2.";
  if (!isJson(input)) return `--input is not JSON: ${input.slice(0, 80)}`;
  if (!graphIds.includes(graph)) return `${graph} is no graph here; --graph takes ${graphIds.join(", ")}.`;
  return undefined;
}

const namesIn = (faults: string): string[] => faults.split(",").map((name) => name.trim());

const isCount = (value: number, least: number): boolean => Number.isInteger(value) && value >= least;

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

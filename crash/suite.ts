// Plays rounds of one fault until enough runs were struck: a cluster and a database for the fault, many clients, half
// of them with the official SDK.
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { ask } from "../server/commands/chaos/ask.ts";
import type { Asker, Asking, Question } from "../server/commands/chaos/ask.ts";
import { startCluster } from "../server/commands/chaos/cluster.ts";
import type { Cluster } from "../server/commands/chaos/cluster.ts";
import type { Fault } from "../server/commands/chaos/faults.ts";
import { ENDS_WELL, LAWS } from "../server/commands/chaos/laws.ts";
import type { Random } from "../server/commands/chaos/random.ts";
import { playRound } from "../server/commands/chaos/round.ts";
import type { Stage } from "../server/commands/chaos/round.ts";
import { openScratch } from "../server/commands/chaos/scratch.ts";
import type { PostgresServer, Scratch } from "../server/commands/chaos/scratch.ts";
import { uuidv7 } from "../server/ids.ts";
import { crashLaws } from "./laws.ts";
import { promptOf } from "./model.ts";
import type { CountingModel } from "./model.ts";
import type { Outcome, Violation } from "./report.ts";
import { askOverProtocol, askWhereFollowed } from "./protocol.ts";
import { askWithSdk } from "./sdk.ts";

export interface Suite {
  readonly random: Random;
  readonly isShort: boolean;
  readonly model: CountingModel;
  readonly server: PostgresServer;
  /** The command line of the servers: of a copy, so that nobody's editing disturbs. */
  readonly cli: string;
  readonly say: (text: string) => void;
  /** The database of a fault that violated a law stays, to be looked at. */
  readonly keepsBroken: boolean;
  /** With which the servers seal what they store; undefined with --plain. */
  readonly keys: string | undefined;
  /** The fault points to die at; all of them unless some were asked for. */
  readonly points?: readonly string[];
}

export type Speak = (asker: Asker, question: Question, threadId: string) => Asking;

export interface Play {
  readonly fault: string;
  readonly goal: number;
  /** Chooses the fault of the next round. */
  readonly next: (round: number) => Fault;
  readonly clients?: number;
  /** Before the first instance starts. */
  readonly prepare?: (scratch: Scratch) => Promise<void>;
  readonly environment?: Readonly<Record<string, string>>;
  /** Tokens and milliseconds between two of them. */
  readonly answer?: (random: Random) => { tokens: number; ms: number };
  /** How many runs each thread is asked for at once; they wait for one another. */
  readonly runsPerThread?: number;
  /** Who asks, in turn: the official SDK and the rig's own client unless said otherwise. */
  readonly speakers?: readonly Speak[];
  /** How likely a client cuts its line after an event. */
  readonly cutChance?: number;
  /** How long a client waits for the next event. */
  readonly patienceMs?: number;
  readonly mayJump?: boolean;
  readonly instances?: number;
  /** Gives up when the goal is not reached after so many. */
  readonly rounds?: number;
  /** Plays all rounds, also when the goal is reached before. */
  readonly isWhole?: boolean;
  /** Where the end of each run is reported to. */
  readonly webhook?: string;
  /** What broke a law when all is over, given the runs that succeeded. */
  readonly atEnd?: (runIds: readonly string[]) => Promise<Violation[]>;
  /** Ends at the first violation. */
  readonly stopsEarly?: boolean;
}

const CLIENTS = 20;
const CUT_CHANCE = 0.02;
// Rounds in which nothing was struck must end some time.
const ROUNDS_PER_TRIAL = 3;
const SHOWN = 3;

const GRAPHS = fileURLToPath(new URL("langgraph.json", import.meta.url));

/** What every server of the suite finds in its environment. */
const environmentOf = ({ model, keys, cli }: Suite): Record<string, string | undefined> => ({
  ...process.env,
  NODE_ENV: undefined,
  OPENAI_BASE_URL: model.url,
  OPENAI_API_KEY: "none",
  HOLDFAST_HEARTBEAT_MS: "1000",
  HOLDFAST_KEYS: keys,
  HOLDFAST_DRAIN_MS: "300",
  HOLDFAST_DRAIN_DELAY_MS: "0",
  // What one server has compiled the others need not.
  NODE_COMPILE_CACHE: join(dirname(cli), "..", "compiled"),
  // Three clusters at once must find room in a PostgreSQL with 100 connections.
  HOLDFAST_POOL_SIZE: "5",
});

export async function play(suite: Suite, options: Play): Promise<Outcome> {
  return onStage(suite, options, (stage) => rounds(suite, stage, options));
}

type Found = Omit<Outcome, "fault" | "seconds">;

/** Gives a fault a database and a cluster of its own, and takes both away again. */
export async function onStage(
  suite: Suite,
  options: Omit<Play, "goal" | "next">,
  work: (stage: Stage) => Promise<Found>,
): Promise<Outcome> {
  const startedAt = Date.now();
  const { fault } = options;
  const scratch = await openScratch(suite.server, suite.keys);
  const parts = new AsyncDisposableStack();
  let isBroken = false;
  parts.defer(() => (isBroken && suite.keepsBroken ? scratch.database.close() : scratch.close()));
  try {
    await options.prepare?.(scratch);
    const cluster = await startCluster({
      databaseUrl: scratch.url,
      graphs: GRAPHS,
      environment: { ...environmentOf(suite), ...options.environment },
      size: options.instances ?? 3,
      cli: suite.cli,
    });
    let unwilling: string[] | undefined;
    const stop = async (): Promise<string[]> => (unwilling ??= await cluster.stop());
    parts.defer(async () => void (await stop()));
    const found = await work({
      cluster,
      database: scratch.database,
      random: suite.random.fork(),
      ask: asking(options, cluster),
      laws: [...LAWS, ENDS_WELL, ...crashLaws(suite.model)],
      mayJump: options.mayJump ?? false,
    });
    const stuck = (await stop()).map((what) => ({ law: "a server that is asked to stop stops", what }));
    const violations = [...found.violations, ...stuck];
    for (const { law, what } of stuck) suite.say(`  BROKEN ${law}: ${what}`);
    isBroken = violations.length > 0;
    if (isBroken && suite.keepsBroken) suite.say(`${fault}: kept ${scratch.url}`);
    return { fault, ...found, violations, seconds: (Date.now() - startedAt) / 1000 };
  } finally {
    await parts.disposeAsync();
  }
}

async function rounds({ say }: Suite, stage: Stage, options: Play): Promise<Found> {
  const { fault, goal, clients = CLIENTS, rounds: most = Math.max(5, goal * ROUNDS_PER_TRIAL) } = options;
  const violations: Violation[] = [];
  const takeovers: number[] = [];
  const handovers: number[] = [];
  const wins: string[] = [];
  let trials = 0;
  for (let round = 0; (trials < goal || options.isWhole) && round < most; round += 1) {
    const played = await playRound(stage, { clients, fault: options.next(round) });
    trials += played.trials;
    for (const { kind, ms } of played.takeovers) (kind === "crash" ? takeovers : handovers).push(ms);
    const fresh = played.verdicts.flatMap(({ title, broken }) =>
      broken.map((what) => ({ law: title, what })),
    );
    violations.push(...fresh);
    const ended = played.facts.runs.filter(({ state }) => state === "success");
    wins.push(...ended.map(({ run_id: runId }) => runId));
    say(`${fault}: round ${round + 1}, ${trials} of ${goal} trials, ${violations.length} violations`);
    for (const { law, what } of fresh.slice(0, SHOWN)) say(`  BROKEN ${law}: ${what}`);
    if (options.stopsEarly && violations.length > 0) break;
  }
  const late = (await options.atEnd?.(wins)) ?? [];
  violations.push(...late);
  for (const { law, what } of late.slice(0, SHOWN)) say(`  BROKEN ${law}: ${what}`);
  if (trials < goal && !options.stopsEarly)
    violations.push({ law: "the suite reaches its goal", what: `${trials} of ${goal} trials` });
  return { trials, violations, takeovers, handovers };
}

/** With several runs per thread, the clients of one thread follow one another. */
function asking(options: Omit<Play, "goal" | "next">, cluster: Cluster): Stage["ask"] {
  const { answer, mayJump = false, runsPerThread = 1 } = options;
  // Legacy events are numbered without those of protocol v2, which a thread of several clients may have too.
  const {
    speakers = runsPerThread > 1 ? [askWithSdk, ask] : [askWithSdk, ask, askOverProtocol, askWhereFollowed],
  } = options;
  const { cutChance = CUT_CHANCE, patienceMs } = options;
  let count = 0;
  let last = { threadId: "", left: 0 };
  return (random) => {
    if (last.left === 0) last = { threadId: uuidv7(), left: runsPerThread };
    last.left -= 1;
    count += 1;
    const { threadId } = last;
    const asker: Asker = {
      address: () => cluster.address(random),
      random,
      cutChance,
      mayJump,
      ...(patienceMs === undefined ? {} : { patienceMs }),
    };
    const { tokens, ms } = answer?.(random) ?? { tokens: random.between(20, 60), ms: random.between(15, 30) };
    const extra = ["values", "updates"].filter(() => random.chance(0.5));
    const question: Question = {
      assistant: "crash",
      input: { messages: [{ role: "user", content: promptOf(threadId) }] },
      modes: ["messages-tuple", ...extra],
      config: { configurable: { model: `fake-slow-${tokens}tok-${ms}ms` } },
      ...(runsPerThread > 1 ? { multitask: "enqueue" } : {}),
      ...(options.webhook ? { webhook: options.webhook } : {}),
    };
    const speak = speakers[count % speakers.length] ?? ask;
    return speak(asker, question, threadId);
  };
}

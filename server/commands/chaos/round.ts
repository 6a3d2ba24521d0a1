// One round: many clients ask at once, a fault strikes while their runs are under way, everybody is followed to the
// end, and what was seen is judged.
import { deadline, now, sleep } from "../../clock.ts";
import { messageOf } from "../../errors.ts";
import type { Database } from "../../storage/database.ts";
import type { Asked, Asking } from "./ask.ts";
import {
  countUnfinished,
  listCheckpointFacts,
  listMoves,
  listRunFacts,
  listSegmentFacts,
  listWrites,
} from "./audit.ts";
import type { Move, Struck } from "./audit.ts";
import type { Cluster, Instance } from "./cluster.ts";
import { judge } from "./laws.ts";
import type { Facts, Law, Told } from "./laws.ts";
import type { Random } from "./random.ts";
import { answerOf } from "./stream.ts";

export interface Stage {
  readonly cluster: Cluster;
  /** Around the proxies. */
  readonly database: Database;
  readonly random: Random;
  /** Sends one more client on its way. */
  readonly ask: (random: Random) => Asking;
  readonly laws: readonly Law[];
  readonly mayJump: boolean;
}

/** A fault that has struck. */
export interface Strike {
  /** The runs that were running where it struck: each is a trial. */
  readonly struck: readonly Struck[];
  /** Servers that died where no run had to be running, such as before one was accepted: each is a trial at least. */
  readonly deaths?: number;
  /** "crash": time counts from the fault; "handover": from the moment the instance gave the run back. */
  readonly kind: "crash" | "handover";
  /** Resolves when everything is as it was before. */
  readonly repaired: Promise<unknown>;
}

export interface RoundResult {
  readonly trials: number;
  /** Milliseconds until each struck run that changed hands ran again. */
  readonly takeovers: readonly { kind: Strike["kind"]; ms: number }[];
  readonly verdicts: readonly { title: string; broken: string[] }[];
  readonly facts: Facts;
}

// After the clients are done or have given up.
const END_MS = 30_000;
const POLL_MS = 50;
const ANSWER_MS = 5000;
const STATE_MS = 30_000;

export async function playRound(
  stage: Stage,
  {
    clients,
    fault,
  }: { clients: number; fault: (stage: Stage, askings: readonly Asking[]) => Promise<Strike> },
): Promise<RoundResult> {
  const { cluster, database, random } = stage;
  const askings = Array.from({ length: clients }, () => stage.ask(random.fork()));
  const strike = await fault(stage, askings);
  const asked = await Promise.all(askings.map(({ done }) => done));
  await strike.repaired;
  const threadIds = asked.map(({ threadId }) => threadId);
  await untilEnded(database, threadIds);
  const told = await Promise.all(asked.map((one) => withState(one, () => cluster.address(random))));
  const facts = await collect(stage, told, threadIds);
  return {
    trials: Math.max(strike.struck.length, strike.deaths ?? 0),
    takeovers: takeoversOf(strike, facts.moves),
    verdicts: judge(facts, stage.laws),
    facts,
  };
}

/** All that is known of some threads. */
export async function collect(
  { cluster, database, mayJump }: Pick<Stage, "cluster" | "database" | "mayJump">,
  told: readonly Told[],
  threadIds: readonly string[],
): Promise<Facts> {
  return {
    told,
    runs: await listRunFacts(database, threadIds),
    moves: await listMoves(database, threadIds),
    writes: await listWrites(database, threadIds),
    segments: await listSegmentFacts(database, threadIds),
    checkpoints: await listCheckpointFacts(database, threadIds),
    workers: new Map(cluster.everyone.map(({ name, workerId }) => [name, workerId])),
    faltering: (await Promise.all(cluster.everyone.map(ailmentOf))).flat(),
    mayJump,
  };
}

async function ailmentOf(instance: Instance): Promise<string[]> {
  const { name, url, complaints } = instance;
  const answer = instance.hasExited ? undefined : await healthOf(url);
  // Looked at afterwards: it may have been killed in the middle of the question.
  if (instance.exitCode) return [`${name} ended with ${instance.exitCode}: ${complaints.at(-1)}`];
  return instance.hasExited || answer === "well" ? [] : [`${name} answers ${answer}`];
}

async function healthOf(url: string): Promise<string> {
  try {
    const { ok, status } = await fetch(`${url}/ok`, { signal: deadline(ANSWER_MS) });
    return ok ? "well" : String(status);
  } catch (error) {
    await sleep(POLL_MS); // the end of a process is told a moment after the end of its sockets
    return `nothing: ${messageOf(error)}`;
  }
}

/** Not an error when it never happens: that a run does not end is for the laws to say. */
async function untilEnded(database: Database, threadIds: readonly string[]): Promise<void> {
  const until = now() + END_MS;
  while (now() < until && (await countUnfinished(database, threadIds)) > 0) await sleep(POLL_MS);
}

interface StateAnswer {
  readonly values: Told["values"] | null;
  readonly checkpoint: { readonly checkpoint_id?: string } | null;
}

async function withState(asked: Asked, address: () => string): Promise<Told> {
  const until = now() + STATE_MS;
  for (;;) {
    try {
      const response = await answerOf(`${address()}/threads/${asked.threadId}/state`, {});
      if (response.status === 404) return { ...asked, values: {} };
      if (!response.ok) throw new Error(`GET state answered ${response.status}: ${await response.text()}`);
      const { values, checkpoint } = (await response.json()) as StateAnswer;
      return { ...asked, values: values ?? {}, checkpointId: checkpoint?.checkpoint_id };
    } catch (error) {
      if (now() > until) throw error;
      await sleep(POLL_MS);
    }
  }
}

function takeoversOf(strike: Strike, moves: readonly Move[]): RoundResult["takeovers"] {
  const byRun = Map.groupBy(moves, ({ run_id: runId }) => runId);
  return strike.struck.flatMap(({ run_id: runId, attempt, at: struckAt }) => {
    const after = (byRun.get(runId) ?? []).filter(({ at }) => at >= struckAt);
    const claimed = after.find((move) => move.state === "running" && move.attempt > attempt);
    if (!claimed) return [];
    const givenBack = after.find((move) => move.state === "ready");
    const from = strike.kind === "handover" ? (givenBack?.at ?? struckAt) : struckAt;
    return [{ kind: strike.kind, ms: claimed.at - from }];
  });
}

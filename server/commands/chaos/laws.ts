// What must hold whatever breaks: each law is one sentence and a pure function from what was seen to what broke it.
import { MOVES, isTerminal } from "../../storage/run-states.ts";
import type { RunState } from "../../storage/run-states.ts";
import type { Asked } from "./ask.ts";
import type { CheckpointFact, Move, RunFact, SegmentFact, Write } from "./audit.ts";
import type { Message } from "./sight.ts";

/** A question, what became of it, and the thread's state in the end. */
export interface Told extends Asked {
  /** The checkpoint that the state names; undefined when the thread is gone or has none. */
  readonly checkpointId?: string | undefined;
  readonly values: Readonly<Record<string, unknown>> & { readonly messages?: readonly Message[] };
}

export interface Facts {
  readonly told: readonly Told[];
  readonly runs: readonly RunFact[];
  readonly moves: readonly Move[];
  readonly writes: readonly Write[];
  readonly segments: readonly SegmentFact[];
  readonly checkpoints: readonly CheckpointFact[];
  /** Worker ids by the name under which the database knows an instance. */
  readonly workers: ReadonlyMap<string, string>;
  /** What is wrong with servers that nobody killed. */
  readonly faltering: readonly string[];
  /** The database itself has crashed: the numbers of events may jump where an attempt begins. */
  readonly mayJump: boolean;
}

export interface Law {
  readonly title: string;
  readonly broken: (facts: Facts) => string[];
}

/** Laws that hold for any graph and any fault. */
export const LAWS: readonly Law[] = [
  { title: "servers that are not killed go on answering", broken: ({ faltering }) => [...faltering] },
  { title: "a run that was accepted exists, once", broken: lostOrDoubled },
  { title: "every run ends, once", broken: endless },
  { title: "a thread has one live run at most", broken: crowded },
  { title: "states move only as they may, and attempts only grow", broken: misplaced },
  { title: "nothing is written by an attempt after the next one was claimed", broken: haunted },
  { title: "events are numbered without gaps, attempt after attempt", broken: gapped },
  { title: "the checkpoints of a thread form one chain", broken: forked },
  { title: "the state of a thread is that of its last checkpoint", broken: unfounded },
  { title: "a client sees every event once, in order, to the end", broken: misled },
  { title: "what a client shows in the end is what the thread holds", broken: misshown },
];

/** For graphs that do not fail by themselves. */
export const ENDS_WELL: Law = {
  title: "no run fails because of a fault",
  broken: ({ runs }) =>
    runs
      .filter(({ state }) => state === "error" || state === "timeout")
      .map(
        ({ run_id, state, attempt, error }) =>
          `run ${run_id} ended as ${state} in attempt ${attempt}: ${error?.error} ${error?.message}`,
      ),
};

/** What broke each law, law by law. */
export function judge(facts: Facts, laws: readonly Law[]): { title: string; broken: string[] }[] {
  return laws.map(({ title, broken }) => ({ title, broken: broken(facts) }));
}

function lostOrDoubled({ told, runs }: Facts): string[] {
  const ids = new Set(runs.map(({ run_id: runId }) => runId));
  const lost = told.filter(({ runId }) => runId !== undefined && !ids.has(runId));
  const asked = Map.groupBy(told, ({ threadId }) => threadId);
  const found = Map.groupBy(runs, ({ thread_id: threadId }) => threadId);
  const doubled = [...found].filter(([threadId, rows]) => rows.length > (asked.get(threadId)?.length ?? 0));
  return [
    ...lost.map(({ runId }) => `run ${runId} was accepted and is gone`),
    ...doubled.map(([id, rows]) => `thread ${id} has ${rows.length} runs, more than it was asked for`),
  ];
}

function endless({ runs, moves }: Facts): string[] {
  const ends = Map.groupBy(
    moves.filter(({ state }) => state !== null && isTerminal(state)),
    ({ run_id: runId }) => runId,
  );
  return runs.flatMap(({ run_id: runId, state, attempt }) => {
    if (!isTerminal(state)) return [`run ${runId} is still ${state} in attempt ${attempt}`];
    const count = ends.get(runId)?.length ?? 0;
    return count === 1 ? [] : [`run ${runId} ended ${count} times`];
  });
}

function crowded({ moves }: Facts): string[] {
  const found: string[] = [];
  const live = new Map<string, Set<string>>();
  for (const { thread_id: threadId, run_id: runId, state } of moves) {
    const runs = live.get(threadId) ?? new Set();
    live.set(threadId, runs);
    if (state === "ready" || state === "running") runs.add(runId);
    else runs.delete(runId);
    if (runs.size > 1) found.push(`thread ${threadId} has ${runs.size} live runs: ${[...runs].join(", ")}`);
  }
  return found;
}

const FIRST: ReadonlySet<RunState> = new Set(["delayed", "blocked", "ready", "running"]);

function misplaced({ moves }: Facts): string[] {
  return moves.flatMap((move) => {
    const { run_id: runId, was, state, attempt_was: before, attempt } = move;
    if (state === null) return [];
    if (was === null) {
      const isFine = FIRST.has(state) && attempt === (state === "running" ? 1 : 0);
      return isFine ? [] : [`run ${runId} began as ${state} in attempt ${attempt}`];
    }
    const allowed: readonly RunState[] = MOVES[was];
    if (was !== state && !allowed.includes(state)) return [`run ${runId} went from ${was} to ${state}`];
    const due = (before ?? 0) + (state === "running" && was !== "running" ? 1 : 0);
    return attempt === due
      ? []
      : [`run ${runId} went from attempt ${before} to ${attempt} on the way from ${was} to ${state}`];
  });
}

function haunted({ writes, workers }: Facts): string[] {
  return writes.flatMap((write) => {
    const { what, writer, run_id: runId, attempt, run_state: state } = write;
    if (runId === null) return []; // no run's: a client changed the thread
    const who = `${what} of ${writer} for run ${runId}`;
    if (state === null) return [`${who} after the run was deleted`];
    if (attempt !== null && attempt !== write.run_attempt)
      return [`${who} in attempt ${attempt} while it was in attempt ${write.run_attempt}`];
    if (write.is_ending) return [];
    if (state !== "running") return [`${who} while the run was ${state}`];
    const worker = workers.get(writer);
    return worker === undefined || worker === write.run_worker
      ? []
      : [`${who} while the run belonged to ${write.run_worker}`];
  });
}

function gapped({ segments, mayJump }: Facts): string[] {
  const found: string[] = [];
  for (const [runId, rows] of Map.groupBy(segments, ({ run_id: id }) => id)) {
    let [next, attempt] = [0, 0];
    for (const row of rows) {
      const isNew = row.attempt > attempt;
      if (row.attempt < attempt)
        found.push(
          `run ${runId}: event ${row.seq} of attempt ${row.attempt} stands after attempt ${attempt}`,
        );
      if (row.seq < next) found.push(`run ${runId}: event ${row.seq} exists twice`);
      if (row.seq > next && !(mayJump && isNew))
        found.push(`run ${runId}: event ${next} is missing before ${row.seq}`);
      next = row.last + 1;
      attempt = Math.max(attempt, row.attempt);
    }
  }
  return found;
}

function forked({ checkpoints }: Facts): string[] {
  const found: string[] = [];
  for (const [threadId, rows] of Map.groupBy(checkpoints, ({ thread_id: id }) => id)) {
    const ids = new Set(rows.map(({ checkpoint_id: id }) => id));
    const parents = rows.map(({ parent_checkpoint_id: parent }) => parent);
    const roots = parents.filter((parent) => parent === null).length;
    if (roots !== 1) found.push(`thread ${threadId} has ${roots} first checkpoints`);
    const named = parents.filter((parent) => parent !== null);
    const missing = named.filter((parent) => !ids.has(parent));
    if (missing.length > 0) found.push(`thread ${threadId} lacks the checkpoint ${missing[0]}`);
    if (new Set(named).size !== named.length) found.push(`thread ${threadId} has a fork in its checkpoints`);
  }
  return found;
}

function unfounded({ told, checkpoints }: Facts): string[] {
  const points = Map.groupBy(checkpoints, ({ thread_id: id }) => id);
  return told.flatMap(({ threadId, checkpointId }) => {
    if (checkpointId === undefined) return [];
    const rows = points.get(threadId) ?? [];
    if (!rows.some(({ checkpoint_id: id }) => id === checkpointId))
      return [`thread ${threadId}: its state names the checkpoint ${checkpointId}, which is not there`];
    const isLast = rows.every(({ parent_checkpoint_id: parent }) => parent !== checkpointId);
    return isLast ? [] : [`thread ${threadId}: its state is that of ${checkpointId}, which has a successor`];
  });
}

function misled({ told, segments }: Facts): string[] {
  const last = new Map<string, number>();
  for (const row of segments) last.set(row.run_id, Math.max(row.last, last.get(row.run_id) ?? -1));
  return told.flatMap(({ threadId, runId, sight, troubles, isFollowed = false }) => {
    const found = [...troubles, ...sight.troubles].map((text) => `thread ${threadId}: ${text}`);
    const end = last.get(runId ?? "") ?? -1;
    if (found.length === 0 && !isFollowed && sight.lastId !== end)
      found.push(`thread ${threadId}: the client saw events up to ${sight.lastId}, there are ${end}`);
    return found.map((text) => `${text} (${sight.trail.join("; ")})`);
  });
}

function misshown({ told, runs }: Facts): string[] {
  const ended = new Map(runs.map(({ run_id: runId, state }) => [runId, state]));
  const counts = Map.groupBy(runs, ({ thread_id: threadId }) => threadId);
  return told
    .filter(({ runId, troubles }) => ended.get(runId ?? "") === "success" && troubles.length === 0)
    .flatMap(({ threadId, sight, values }) => {
      const isOnly = counts.get(threadId)?.length === 1;
      const found = sight.differences(values.messages ?? [], { isOnly });
      return found.map((text) => `thread ${threadId}: ${text}`);
    });
}

// What the server does for the tools of a run: a line in the audit log for each call, limits that all servers keep
// together, and the way out. Nothing of what a tool was asked or answered comes here.
import { messageOf } from "../errors.ts";
import { persistently } from "../persist.ts";
import type { ToolEvent, ToolServices } from "../services.ts";
import { insertAudit } from "../storage/audit.ts";
import type { Database } from "../storage/database.ts";
import { pseudonymOf } from "../storage/keys/pseudonyms.ts";
import { openCounter } from "../storage/rate-limits.ts";
import type { Counter } from "../storage/rate-limits.ts";
import type { Engine } from "./engine.ts";
import type { AcceptedRun } from "./request.ts";

// Of a provider's ids, those that can hold no text.
const ID = /^[\w-]{1,80}$/;

const QUESTION = /^[0-9a-f]{32}$/;

// A counter knows what is used up without asking, so it is kept.
const counters = new WeakMap<Database, Map<number, Counter>>();

/** @param signal of the run: while it is stopped nothing is tried again */
export function toolsFor(engine: Engine, run: AcceptedRun, signal: AbortSignal): ToolServices {
  const { database, egress, log } = engine;
  const patiently = <T>(work: () => Promise<T>): Promise<T> => persistently(work, { signal });
  return {
    egress,
    bringsAnswer: isForAny(run.kwargs.command?.["resume"]),
    tellFailure: (tool, error) =>
      log.warn("tool.failed", { run_id: run.run_id, tool, reason: messageOf(error) }),
    audit: async ({ action, tool = "unknown", callId, outcome, ms, code }: ToolEvent) => {
      const identity = run.auth?.user.identity;
      const actor =
        identity === undefined
          ? { actorKind: "server" as const }
          : { actorKind: "caller" as const, actorHash: await pseudonymOf(database, identity) };
      const detail = {
        thread_id: run.thread_id,
        run_id: run.run_id,
        call_id: ID.test(callId) ? callId : null,
        ...(ms === undefined ? {} : { ms }),
        ...(code === undefined ? {} : { code }),
      };
      const object = `tool:${tool} run:${run.run_id}`;
      await patiently(() => insertAudit(database, { ...actor, action, object, outcome, detail }));
    },
    take: async (tool, perMinute) => {
      const { isAllowed, endsInMs } = await patiently(() =>
        counterOf(database, perMinute).take(`tool ${tool}`, 1),
      );
      return isAllowed ? 0 : Math.max(1, endsInMs);
    },
  };
}

/** Not one by ids of questions, which LangGraph gives to these alone. */
const isForAny = (resume: unknown): boolean =>
  (resume ?? null) !== null &&
  !(typeof resume === "object" && Object.keys(Object(resume)).every((key) => QUESTION.test(key)));

function counterOf(database: Database, most: number): Counter {
  const known = counters.get(database) ?? new Map<number, Counter>();
  counters.set(database, known);
  const counter = known.get(most) ?? openCounter(database, { name: "tools", most });
  known.set(most, counter);
  return counter;
}

// The three ways to see a run: as a stream of events, as its last values, or as its end.
// A response ends cleanly only when its run is over; otherwise its connection is broken off.
import type { Context } from "hono";
import { sleep } from "../../clock.ts";
import { InputInvalid, RunNotFound, ServerStopping, messageOf } from "../../errors.ts";
import { persistently } from "../../persist.ts";
import { cancelRun, stopRuns } from "../../runs/cancel.ts";
import type { Engine } from "../../runs/engine.ts";
import { followLegacy } from "../../runs/follow.ts";
import { dataOf, nameOf } from "../../runs/log/lines.ts";
import type { Numbered } from "../../runs/log/lines.ts";
import { getStateText } from "../../runs/state.ts";
import type { RunFacts } from "../../storage/runs.ts";
import { EVENT_STREAM, HEARTBEAT, frames, streamed } from "./sse.ts";
import type { Bindings } from "../bindings.ts";
import type { Streamed } from "./body.ts";

// `join` answers with plain headers if the run ends soon: until then another instance can still take the request over.
const HEADERS_HELD_MS = 20_000;

interface From {
  /** The last event the client has; -1 for none. */
  readonly after: number;
  readonly cancelsOnLeave: boolean;
  readonly isStateless: boolean;
  /** Only events of these modes; each keeps its number. */
  readonly modes?: readonly string[] | undefined;
  /** Only events of these namespaces, without the subagents that they start; empty for the graph itself. */
  readonly namespaces?: readonly string[] | undefined;
}

const JSON_TEXT = { "content-type": "application/json" };
const AS_JSON = { render: String, keepAlive: "\n" };
// What every stream shows, whatever its modes.
const ALWAYS = new Set(["metadata", "error"]);

export class RunStreams {
  readonly #engine: Engine;
  readonly #heartbeatMs: number;

  constructor(engine: Engine, heartbeatMs: number) {
    this.#engine = engine;
    this.#heartbeatMs = heartbeatMs;
  }

  stream(context: Context<Bindings>, run: RunFacts, from: From): Response {
    const gone = new AbortController();
    const events = followLegacy(this.#engine, run, { after: from.after, signal: gone.signal });
    const shown = from.modes || from.namespaces ? wantedOf(events, from) : events;
    const headers = { ...EVENT_STREAM, ...locationsOf(run, from) };
    const options = this.#held(run, from, gone);
    return streamed(context, headers, { ...options, items: shown, render: frames, keepAlive: HEARTBEAT });
  }

  /** The last values as one JSON object, with an empty line now and then while it is not there yet. */
  wait(context: Context<Bindings>, run: RunFacts, from: From): Response {
    const gone = new AbortController();
    const events = followLegacy(this.#engine, run, { after: from.after, signal: gone.signal });
    const items = this.#valuesOf(run, lastValues(events));
    const headers = { ...JSON_TEXT, ...locationsOf(run, from) };
    return streamed(context, headers, { ...this.#held(run, from, gone), ...AS_JSON, items });
  }

  /** The final values of a run, else of its thread. */
  async join(context: Context<Bindings>, run: RunFacts, cancelsOnLeave: boolean): Promise<Response> {
    const from = { after: -1, cancelsOnLeave, isStateless: false };
    const gone = new AbortController();
    const events = followLegacy(this.#engine, run, { after: -1, signal: gone.signal });
    const values = this.#valuesOf(run, lastValues(events));
    const first = values.next();
    context.req.raw.signal.addEventListener("abort", () => gone.abort(), { once: true });
    const stopping = this.#engine.stopping;
    const early = await Promise.race([
      first,
      sleep(HEADERS_HELD_MS, AbortSignal.any([stopping, gone.signal])),
    ]);
    if (!early && stopping.aborted) {
      gone.abort();
      throw new ServerStopping();
    }
    const items = early ? again(early, values) : resumed(first, values);
    return streamed(context, JSON_TEXT, { ...this.#held(run, from, gone), ...AS_JSON, items });
  }

  /** Resolves when the run is over or the client is gone. */
  async ended(context: Context<Bindings>, run: RunFacts): Promise<void> {
    const { signal } = context.req.raw;
    try {
      for await (const events of followLegacy(this.#engine, run, { after: -1, signal })) void events;
    } catch (error) {
      if (!(error instanceof RunNotFound)) throw error; // rolled back: over and gone
    }
  }

  async *#valuesOf(run: RunFacts, values: AsyncGenerator<string>): AsyncGenerator<string> {
    for await (const text of values) {
      if (text !== "{}") yield text;
      else {
        const state: unknown = JSON.parse(await getStateText(this.#engine, run.thread_id, true));
        yield JSON.stringify(Object(state).values ?? {});
      }
    }
  }

  #held(
    run: RunFacts,
    from: From,
    gone: AbortController,
  ): Omit<Streamed<unknown>, "items" | "render" | "keepAlive"> {
    const engine = this.#engine;
    return {
      heartbeatMs: this.#heartbeatMs,
      gone,
      onLeave: () => {
        // A socket that this server cut when it stopped is no wish of the client.
        if (!from.cancelsOnLeave || engine.stopping.aborted) return;
        stopRuns(engine, [run.run_id], "interrupt");
        const place = { threadId: run.thread_id, runId: run.run_id };
        // Nobody asks again: he is gone.
        persistently(() => cancelRun(engine, place, "interrupt", "the client left"), {
          signal: engine.stopping,
        }).catch((error: unknown) =>
          engine.log.debug("cancel.late", { run_id: run.run_id, reason: messageOf(error) }),
        );
      },
      onCut: (reason) => engine.log.warn("stream.broken", { run_id: run.run_id, reason: messageOf(reason) }),
    };
  }
}

/** Reads Last-Event-ID. @throws InputInvalid */
export function cursorOf(header: string | undefined): number {
  if (header === undefined || header === "") return -1;
  if (/^(-1|\d{1,9})$/.test(header)) return Number(header);
  throw new InputInvalid("Last-Event-ID must be the number of an event, or -1 for all of them.");
}

/** The last `values` of a run as one JSON object: with interrupts if it stopped at one, or its error. */
async function* lastValues(events: AsyncGenerator<Numbered[]>): AsyncGenerator<string> {
  let values: Record<string, unknown> = {};
  for await (const batch of events) {
    for (const { entry } of batch) {
      if (nameOf(entry) === "metadata") values = {}; // a new attempt
      if (nameOf(entry) === "error") values = { __error__: JSON.parse(dataOf(entry)) };
      if (nameOf(entry) !== "values") continue;
      const latest: unknown = JSON.parse(dataOf(entry));
      if (typeof latest !== "object" || latest === null) continue;
      // Questions asked at the same time come one by one.
      if (!("__interrupt__" in latest)) values = { ...latest };
      else values["__interrupt__"] = [values["__interrupt__"] ?? [], latest["__interrupt__"]].flat();
    }
  }
  yield JSON.stringify(values);
}

async function* wantedOf(
  events: AsyncGenerator<Numbered[]>,
  { modes, namespaces }: Pick<From, "modes" | "namespaces">,
): AsyncGenerator<Numbered[]> {
  const isWanted = (event: string): boolean =>
    ALWAYS.has(event) ||
    ((modes?.includes(modeOf(event)) ?? true) && (namespaces?.some((one) => isIn(event, one)) ?? true));
  for await (const batch of events) yield batch.filter(({ entry }) => isWanted(nameOf(entry)));
}

/** Whether an event comes from a graph, or from a graph inside of it that is no subagent: those run in tools. */
function isIn(event: string, namespace: string): boolean {
  const [, ...path] = event.split("|");
  const prefix = namespace === "" ? [] : namespace.split("|");
  return (
    prefix.every((segment, index) => path[index] === segment) &&
    !path.slice(prefix.length).some((segment) => segment.startsWith("tools:"))
  );
}

/** The mode under which clients ask for an event, whatever its namespace. */
function modeOf(event: string): string {
  const [mode = ""] = event.split("|", 1);
  if (mode.startsWith("messages/")) return "messages";
  return mode === "messages" ? "messages-tuple" : mode;
}

async function* again<Item>(first: IteratorResult<Item>, rest: AsyncGenerator<Item>): AsyncGenerator<Item> {
  if (first.done) return;
  yield first.value;
  yield* rest;
}

async function* resumed<Item>(
  first: Promise<IteratorResult<Item>>,
  rest: AsyncGenerator<Item>,
): AsyncGenerator<Item> {
  yield* again(await first, rest);
}

/** Where a run is, and where its stream goes on after a cut: there, leaving still cancels if it did before. */
function locationsOf(
  { thread_id: thread, run_id: run }: RunFacts,
  { cancelsOnLeave, isStateless }: From,
): Record<string, string> {
  const path = `/threads/${thread}/runs/${run}`;
  return {
    "content-location": isStateless ? `/runs/${run}` : path,
    location: `${path}/stream${cancelsOnLeave ? "?cancel_on_disconnect=1" : ""}`,
  };
}

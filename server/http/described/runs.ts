// The operations of runs, on a thread and without one.
import { z } from "zod";
import { Events, Run, RunParts, RunsEvents, Values } from "./answers.ts";
import {
  cancelManyBody,
  cancelQuery,
  joinQuery,
  runCreate,
  runList,
  streamQuery,
  threadStreamQuery,
} from "../schemas.ts";
import { json, nothing } from "./describe.ts";
import type { Answer, AnswerHeader, Described, Noun, RequestHeader } from "./describe.ts";

const ALL = "/threads/:thread/runs";
const missing = { 404: ["run_not_found"] };
const crowded = { 429: ["too_many_streams"] };
const PLACES: readonly AnswerHeader[] = ["Content-Location", "Location"];
const KEYED: readonly RequestHeader[] = ["Idempotency-Key"];
const { cancel_on_disconnect: leaving } = joinQuery.shape;

const events = (headers: readonly AnswerHeader[]): Record<200, Answer> => ({
  200: { about: "The events of the run.", type: "text/event-stream", schema: Events, headers },
});
const values = (headers: readonly AnswerHeader[]): Record<200, Answer> =>
  json(Values, "The final values, after newlines while the run lasts; `__error__` if it failed.", headers);

/** What creates runs, below a path. */
function creating(base: string, where: string): Record<string, Described> {
  const isStateless = base === "/runs";
  const name = isStateless ? "StatelessRun" : "Run";
  const create = {
    headers: KEYED,
    body: runCreate,
    errors: {
      404: [
        "assistant_not_found",
        "graph_not_found",
        "checkpoint_not_found",
        ...(isStateless ? [] : ["thread_not_found"]),
      ],
      409: ["assistant_changed"],
      422: ["webhook_refused", "pii_in_identifier", ...(isStateless ? [] : ["thread_busy"])],
      429: isStateless ? [] : ["queue_full"],
    },
  };
  const held = { ...create, errors: { ...create.errors, 429: [...create.errors[429], "too_many_streams"] } };
  return {
    [`POST ${base}`]: {
      id: `create${name}`,
      summary: `Start a run ${where} in the background`,
      ...create,
      answers: json(Run, "The run, after it was committed.", ["Content-Location"]),
    },
    [`POST ${base}/stream`]: {
      id: `stream${name}`,
      summary: `Start a run ${where} and stream it`,
      query: streamQuery,
      ...held,
      answers: events(PLACES),
    },
    [`POST ${base}/wait`]: {
      id: `waitFor${name}`,
      summary: `Start a run ${where} and wait for its values`,
      ...held,
      answers: values(PLACES),
    },
  };
}

/** What shows a run, at a path. */
function seeing(path: string, name: string): Record<string, Described> {
  return {
    [`GET ${path}`]: {
      id: `get${name}`,
      summary: "Get a run",
      answers: json(Run, "The run."),
      errors: missing,
    },
    [`GET ${path}/stream`]: {
      id: `join${name}Stream`,
      summary: "Stream the events of a run, live or over",
      query: joinQuery,
      headers: ["Last-Event-ID"],
      answers: events(PLACES),
      errors: { ...missing, ...crowded },
    },
    [`GET ${path}/join`]: {
      id: `join${name}`,
      summary: "Wait for the end of a run",
      query: z.object({ cancel_on_disconnect: leaving }),
      answers: values([]),
      errors: {
        ...missing,
        ...crowded,
        409: ["graph_not_served", "state_unreadable"],
        503: ["server_stopping"],
      },
    },
  };
}

export const runs: Noun = {
  tag: "Runs",
  about: "One execution of an assistant, on a thread or without one.",
  operations: {
    ...creating(ALL, "on a thread"),
    ...creating("/runs", "without a thread"),
    ...seeing(`${ALL}/:run`, "Run"),
    ...seeing("/runs/:run", "RunById"),
    "GET /threads/:thread/stream": {
      id: "joinThreadStream",
      summary: "Stream the runs of a thread, one after the other",
      about:
        "It begins with the live run, else with the next one. `stream_modes` is another name of `stream_mode`.",
      query: threadStreamQuery,
      headers: ["Last-Event-ID"],
      answers: {
        200: {
          about: "The events of the runs.",
          type: "text/event-stream",
          schema: RunsEvents,
          headers: ["Location"],
        },
      },
      errors: { 404: ["thread_not_found"], ...crowded, 503: ["server_stopping"] },
    },
    "POST /runs/batch": {
      id: "createStatelessRuns",
      summary: "Start many runs without a thread",
      about: "All of them are accepted or none is.",
      body: z.array(runCreate).max(1000),
      answers: json(z.array(Run), "The runs, in the same order."),
      errors: {
        404: ["assistant_not_found", "graph_not_found", "checkpoint_not_found"],
        409: ["assistant_changed"],
        422: ["webhook_refused", "pii_in_identifier"],
      },
    },
    [`GET ${ALL}`]: {
      id: "listRuns",
      summary: "List the runs of a thread",
      about: "`metadata` is a JSON object.",
      query: runList,
      answers: json(z.array(RunParts), "Runs, oldest first."),
      errors: { 404: ["thread_not_found"], 422: ["poisoned_input"] },
    },
    [`DELETE ${ALL}/:run`]: {
      id: "deleteRun",
      summary: "Delete a run that is over",
      answers: nothing,
      errors: { ...missing, 409: ["run_live"] },
    },
    [`POST ${ALL}/:run/retry`]: {
      id: "retryRun",
      summary: "Try a failed run again",
      answers: json(Run, "The run."),
      errors: { ...missing, 409: ["run_not_failed"] },
    },
    [`POST ${ALL}/:run/cancel`]: {
      id: "cancelRun",
      summary: "Cancel a run",
      query: cancelQuery,
      answers: { 202: { about: "It was asked to stop." }, 204: { about: "With `wait`: it has stopped." } },
      errors: { ...missing, 409: ["run_ended"] },
    },
    "POST /runs/cancel": {
      id: "cancelRuns",
      summary: "Cancel many runs",
      query: z.object({ action: cancelQuery.shape.action }),
      body: cancelManyBody,
      answers: nothing,
      errors: missing,
    },
  },
};

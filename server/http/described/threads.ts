// The operations of threads and their state.
import { z } from "zod";
import { Count, FoundThread, Pruned, StateParts, StateUpdated, Thread } from "./answers.ts";
import { pruneBody } from "../threads/prune.ts";
import { stateUpdate, uuid } from "../schemas.ts";
import {
  selectedHistory,
  selectedState,
  selectedStateAt,
  threadCreate,
  threadFilter,
  threadPatch,
  threadQuery,
  threadSearch,
} from "../threads/schemas.ts";
import { PAGED, json, nothing } from "./describe.ts";
import type { Noun } from "./describe.ts";

const ONE = "/threads/:thread";
const missing = { 404: ["thread_not_found"] };
const unread = ["graph_not_served", "state_unreadable"];
const noState = { 404: ["thread_not_found", "checkpoint_not_found"], 409: unread };
const state = json(StateParts, "The state, or the parts of it that `select` names.");
const history = {
  answers: json(z.array(StateParts), "States, newest first; none while the thread was never run."),
  errors: { ...missing, 409: ["graph_not_served"] },
};

export const threads: Noun = {
  tag: "Threads",
  about: "One conversation: its runs, and its state after each step.",
  operations: {
    "POST /threads": {
      id: "createThread",
      summary: "Create a thread",
      about:
        "`supersteps` give it a past without running anything: a graph in `metadata.graph_id` takes them.",
      body: threadCreate,
      answers: json(Thread, "The thread."),
      errors: { ...missing, 409: ["thread_exists"], 422: ["update_refused"] },
    },
    "POST /threads/search": {
      id: "searchThreads",
      summary: "Search threads",
      about: "`extract` maps names of your own to paths such as `values.messages[-1].content`.",
      body: threadSearch,
      answers: json(z.array(FoundThread), "A page of threads, or of the fields in `select`.", PAGED),
    },
    "POST /threads/count": {
      id: "countThreads",
      summary: "Count threads",
      body: threadFilter,
      answers: json(Count, "How many a search finds."),
    },
    "POST /threads/prune": {
      id: "pruneThreads",
      summary: "Prune threads",
      about: "Deletes them, or all of them but what their newest state needs. Unknown ids are skipped.",
      body: pruneBody,
      answers: json(Pruned, "How many were pruned."),
      errors: { 409: ["thread_busy"] },
    },
    [`GET ${ONE}`]: {
      id: "getThread",
      summary: "Get a thread",
      query: threadQuery,
      answers: json(Thread, "The thread."),
      errors: missing,
    },
    [`PATCH ${ONE}`]: {
      id: "changeThread",
      summary: "Change a thread",
      about: "Metadata are merged, key by key.",
      headers: ["Prefer"],
      body: threadPatch,
      answers: { ...json(Thread, "The thread."), ...nothing },
      errors: missing,
    },
    [`DELETE ${ONE}`]: {
      id: "deleteThread",
      summary: "Delete a thread",
      answers: nothing,
      errors: { ...missing, 409: ["thread_busy"] },
    },
    [`POST ${ONE}/copy`]: {
      id: "copyThread",
      summary: "Copy a thread",
      answers: json(Thread, "The new thread, with all checkpoints of the other and none of its runs."),
      errors: { ...missing, 409: ["copy_source_missing"] },
    },
    [`GET ${ONE}/state`]: {
      id: "getState",
      summary: "Get the newest state of a thread",
      query: selectedState,
      answers: state,
      errors: { ...missing, 409: unread },
    },
    [`GET ${ONE}/state/:checkpoint`]: {
      id: "getStateAt",
      summary: "Get the state of a thread at a checkpoint",
      query: selectedState,
      answers: state,
      errors: noState,
    },
    [`POST ${ONE}/state/checkpoint`]: {
      id: "getStateAtCheckpoint",
      summary: "Get the state of a thread at a checkpoint, also of a subgraph",
      body: selectedStateAt,
      answers: state,
      errors: noState,
    },
    [`POST ${ONE}/state`]: {
      id: "updateState",
      summary: "Write values to a thread as if a node had",
      body: stateUpdate,
      answers: json(StateUpdated, "The new checkpoint."),
      errors: {
        400: ["thread_without_graph"],
        404: ["thread_not_found", "checkpoint_not_found"],
        409: ["thread_busy", "graph_not_served"],
        422: ["update_refused"],
      },
    },
    [`GET ${ONE}/history`]: {
      id: "listHistory",
      summary: "List the states of a thread",
      query: selectedHistory.pick({ limit: true, select: true }).extend({ before: uuid.optional() }),
      ...history,
    },
    [`POST ${ONE}/history`]: {
      id: "searchHistory",
      summary: "List the states of a thread, with filters",
      body: selectedHistory,
      ...history,
    },
  },
};

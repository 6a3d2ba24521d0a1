// The states of a run and the moves between them: the one table that code, the database's CHECK and docs follow.

export const MOVES = {
  delayed: ["blocked", "interrupted"],
  blocked: ["ready", "interrupted"],
  ready: ["running", "interrupted"],
  running: ["ready", "success", "error", "timeout", "interrupted"],
  success: [],
  error: ["blocked"],
  timeout: ["blocked"],
  interrupted: [],
} as const;

export type RunState = keyof typeof MOVES;

const TERMINAL: ReadonlySet<RunState> = new Set(["success", "error", "timeout", "interrupted"]);
const PENDING: ReadonlySet<RunState> = new Set(["delayed", "blocked", "ready"]);

/** Whether a run in this state is over. Only a retry, asked for by a client, brings it back. */
export const isTerminal = (state: RunState): boolean => TERMINAL.has(state);

/** Whether a run in this state waits for a worker, for its thread or for its time. */
export const isPending = (state: RunState): boolean => PENDING.has(state);

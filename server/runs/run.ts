// The states of a run and the moves between them: the one table that code, the database's CHECK and docs follow.

export const MOVES = {
  delayed: ["ready", "running", "interrupted"],
  blocked: ["ready", "running", "interrupted"],
  ready: ["running", "error", "interrupted"],
  running: ["ready", "success", "error", "timeout", "interrupted"],
  success: [],
  error: [],
  timeout: [],
  interrupted: [],
} as const;

export type RunState = keyof typeof MOVES;

/** Whether a run in this state is over: nothing will be added to its stream. */
export const isTerminal = (state: RunState): boolean => MOVES[state].length === 0;

// Failures of threads whose graph is not served here any more, or not as they were run with it.
import { AppError } from "./app-error.ts";

/** The thread was run with a graph that langgraph.json does not name any more, or names one in its metadata. */
export class GraphNotServed extends AppError {
  readonly code = "graph_not_served";
  readonly status = 409;
  constructor(graphId: string) {
    super(
      `Graph ${graphId} of this thread is not served here: its state cannot be read. Add it to langgraph.json.`,
    );
  }
}

/** The graph's own code, a reducer as a rule, throws when it reads what an earlier run has left. */
export class StateUnreadable extends AppError {
  readonly code = "state_unreadable";
  readonly status = 409;
  constructor(error: Error) {
    super(
      `The graph of this thread fails when it reads this state (${error.name}). Go on from an older checkpoint.`,
      { cause: error },
    );
  }
}

/** A run is to go on at a node that its graph does not have any more. */
export class NodeMissing extends AppError {
  readonly code = "node_missing";
  readonly status = 409;
  constructor(graphId: string, node: string) {
    super(
      `Graph ${graphId} has no node "${node}" any more, and this run is to go on there. Serve the graph with that node and try the run again, or send a new input.`,
    );
  }
}

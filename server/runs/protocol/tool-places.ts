// Where tools are called: LangGraph's mode tools names the graph, clients of protocol v2 go by the task in it.
import { BaseCallbackHandler } from "@langchain/core/callbacks/base";
import { asFields } from "../../fields.ts";
import type { Chunk } from "../graph/graph-stream.ts";

export class ToolPlaces extends BaseCallbackHandler {
  readonly name = "tool-places";
  /** By the id of the call. */
  readonly #tasks = new Map<string, readonly string[]>();

  constructor() {
    super({ _awaitHandler: true }); // one that is called later would come behind the chunk
  }

  override handleToolStart(...[, , , , , metadata, , callId]: Started): void {
    const task = metadata?.["langgraph_checkpoint_ns"];
    if (callId !== undefined && typeof task === "string") this.#tasks.set(callId, task.split("|"));
  }

  /** What is told of a tool, under the task that calls it. */
  placed(chunk: Chunk): Chunk {
    if (chunk.mode !== "tools") return chunk;
    const callId = asFields(chunk.payload)["toolCallId"];
    return { ...chunk, namespace: this.#tasks.get(String(callId)) ?? chunk.namespace };
  }
}

type Started = Parameters<NonNullable<BaseCallbackHandler["handleToolStart"]>>;

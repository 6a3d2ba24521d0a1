// What mode debug tells, with checkpoints as clients know them: LangGraph says where they are as the configuration of a run.
import { asFields } from "../../fields.ts";

/** @param told plain JSON: `{type, timestamp, step, payload}` */
export function debugOf(told: unknown): unknown {
  const chunk = asFields(told);
  if (chunk["type"] === "task_result") return { ...chunk, payload: taskOf(chunk["payload"]) };
  if (chunk["type"] !== "checkpoint") return told;
  const { parentConfig: parent, tasks, ...payload } = asFields(chunk["payload"]);
  const shown = {
    ...payload,
    checkpoint: placeOf(payload["config"]),
    parent_checkpoint: placeOf(parent),
    tasks: Array.isArray(tasks) ? tasks.map((task) => taskOf(task)) : tasks,
    parent_config: parent,
  };
  return { ...chunk, payload: shown };
}

/** A task that is a graph has the place of that graph's state in `state`. */
function taskOf(task: unknown): unknown {
  const { state, ...rest } = asFields(task);
  const checkpoint = placeOf(state, null);
  return checkpoint ? { ...rest, checkpoint } : task;
}

/** @param noId stands for an id that is not said; without it, a place has to have one */
function placeOf(config: unknown, noId?: null): object | null {
  const {
    thread_id,
    checkpoint_id = noId,
    checkpoint_ns,
    checkpoint_map,
  } = asFields(asFields(config)["configurable"]);
  if (typeof thread_id !== "string" || checkpoint_id === undefined) return null;
  return {
    thread_id,
    checkpoint_id,
    checkpoint_ns: checkpoint_ns ?? "",
    checkpoint_map: checkpoint_map ?? null,
  };
}

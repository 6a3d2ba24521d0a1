// What mode debug tells, with checkpoints as clients know them: LangGraph says where they are as the configuration of a run.

type Fields = Record<string, unknown>;

const fieldsOf = (value: unknown): Fields | undefined =>
  typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Fields) : undefined;

/** @param told plain JSON: `{type, timestamp, step, payload}` */
export function debugOf(told: unknown): unknown {
  const chunk = fieldsOf(told);
  const payload = fieldsOf(chunk?.["payload"]);
  if (!chunk || !payload) return told;
  if (chunk["type"] === "task_result") return { ...chunk, payload: taskOf(payload) };
  if (chunk["type"] !== "checkpoint") return told;
  const { parentConfig: parent, tasks, ...rest } = payload;
  const shown = {
    ...rest,
    checkpoint: placeOf(payload["config"]),
    parent_checkpoint: placeOf(parent),
    tasks: Array.isArray(tasks) ? tasks.map((task) => taskOf(task)) : tasks,
    parent_config: parent,
  };
  return { ...chunk, payload: shown };
}

/** A task that is a graph has the place of that graph's state in `state`. */
function taskOf(task: unknown): unknown {
  const { state, ...rest } = fieldsOf(task) ?? {};
  const checkpoint = placeOf(state, null);
  return checkpoint ? { ...rest, checkpoint } : task;
}

/** @param noId stands for an id that is not said; without it, a place has to have one */
function placeOf(config: unknown, noId?: null): Fields | null {
  const at = fieldsOf(fieldsOf(config)?.["configurable"]);
  const id = at?.["checkpoint_id"] ?? noId;
  if (typeof at?.["thread_id"] !== "string" || id === undefined) return null;
  return {
    thread_id: at["thread_id"],
    checkpoint_id: id,
    checkpoint_ns: at["checkpoint_ns"] ?? "",
    checkpoint_map: at["checkpoint_map"] ?? null,
  };
}

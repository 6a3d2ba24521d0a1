// The form of threads in answers, and the parts of threads and states that a client asked for.
import type { Fields } from "../../fields.ts";
import type { ThreadState } from "../../runs/state-shape.ts";
import type { Shown } from "../../runs/thread-view.ts";
import type { ThreadRow, WholeThread } from "../../storage/threads.ts";
import type { Path } from "./schemas.ts";

const VALUES = "values.";

export function toThread(thread: ThreadRow & Shown): Fields {
  return {
    thread_id: thread.thread_id,
    status: thread.status,
    metadata: thread.metadata,
    config: thread.config,
    created_at: thread.created_at,
    updated_at: thread.updated_at,
    state_updated_at: thread.state_updated_at,
    values: thread.values,
    interrupts: thread.interrupts,
    // It stays until another run has ended: one that is cancelled before it begins changes nothing.
    ...(thread.status === "error" && thread.error ? { error: thread.error } : {}),
    ...(thread.is_temporary ? { is_temporary: true } : {}),
  };
}

/** How long a thread is kept, for `include=ttl`; null for ever. */
export function ttlInfoOf(
  thread: Pick<WholeThread, "ttl_minutes" | "ttl_strategy" | "expires_at">,
): object | null {
  const { ttl_minutes: minutes, ttl_strategy: strategy, expires_at: expiresAt } = thread;
  return minutes === null
    ? null
    : { strategy: strategy ?? "delete", ttl_minutes: minutes, expires_at: expiresAt };
}

/** What stands at each path; null where there is nothing. */
export const extract = (thread: Fields, paths: Readonly<Record<string, Path>>): Fields =>
  Object.fromEntries(Object.entries(paths).map(([alias, path]) => [alias, valueAt(thread, path)]));

/** Only these parts of a state: a part by its name, one key of its values as `values.<key>`; all when none are named. */
export function selectState(state: ThreadState, select: readonly string[] | undefined): object {
  if (!select) return state;
  const keys = select.filter((name) => name.startsWith(VALUES)).map((name) => name.slice(VALUES.length));
  const isSome = keys.length > 0 && !select.includes("values");
  const parts = Object.entries(state).filter(([name]) => select.includes(name));
  return Object.fromEntries(isSome ? [["values", someOf(state.values, keys)], ...parts] : parts);
}

function someOf(values: unknown, keys: readonly string[]): Fields {
  if (typeof values !== "object" || values === null) return {};
  return Object.fromEntries(Object.entries(values).filter(([key]) => keys.includes(key)));
}

function valueAt(thread: Fields, path: Path): unknown {
  let value: unknown = thread;
  for (const step of path) {
    if (typeof step === "number") value = Array.isArray(value) ? value.at(step) : undefined;
    else if (typeof value === "object" && value !== null && Object.hasOwn(value, step))
      value = Reflect.get(value, step);
    else return null;
  }
  return value ?? null;
}

// Which guard looks at what: a graph's own, where it is known whose text it is.
import type { Guard } from "../privacy/guard.ts";
import { unlessLost } from "../persist.ts";
import { requireAssistant } from "./assistants.ts";
import type { Engine } from "./engine.ts";

/** The guard of the graph behind an assistant's name or id; that of no graph when there is none. */
export async function guardOfAssistant(engine: Engine, named: unknown): Promise<Guard> {
  if (typeof named !== "string") return engine.privacy.of();
  if (engine.graphs.has(named)) return engine.privacy.of(named);
  // Whoever works with the request says what is wrong with it.
  const assistant = await unlessLost(() => requireAssistant(engine, named));
  return engine.privacy.of(assistant?.graph_id);
}

// What of a request is looked at on its thread, where what is found may be kept apart.
const ON_THREAD = new Set(["input", "command", "config", "context"]);

/** What clients ask of a run, as it may go on: what its thread's vault may keep is looked at when the run is accepted. */
export function guardAsked<Asked extends object>(guard: Guard, asked: Asked): Asked {
  if (guard.mode !== "tokenise") return guard.value(asked);
  const later = Object.fromEntries(Object.entries(asked).filter(([name]) => ON_THREAD.has(name)));
  const rest = Object.entries(asked).filter(([name]) => !ON_THREAD.has(name));
  return { ...guard.value(Object.fromEntries(rest)), ...later } as Asked; // the same fields
}

/**
 * What a saver keeps of a value of the graph. What is still found there was in a node's memory: it is taken out, and the
 * log says so once for each channel and kind, never what it was.
 * @param onMasked told each time
 */
export function keeping(
  { log }: Pick<Engine, "log">,
  guard: Guard,
  about: { readonly graph_id: unknown; readonly thread_id: string; readonly run_id?: string },
  onMasked: () => void = () => {},
): <Kept>(value: Kept, channel: string) => Kept {
  const told = new Set<string>();
  return (value, channel) =>
    guard.value(value, (kind) => {
      onMasked();
      const found = `${channel} ${kind}`;
      if (told.has(found)) return;
      told.add(found);
      log.warn("privacy.masked", { ...about, channel, kind });
    });
}

// Which guard looks at what: a graph's own, where it is known whose text it is.
import type { Guard } from "../privacy/guard.ts";
import { AppError } from "../errors.ts";
import { requireAssistant } from "./assistants.ts";
import type { Engine } from "./engine.ts";

/** The guard of the graph behind an assistant's name or id; that of no graph when there is none. */
export async function guardOfAssistant(engine: Engine, named: unknown): Promise<Guard> {
  if (typeof named !== "string") return engine.privacy.of();
  if (engine.graphs.has(named)) return engine.privacy.of(named);
  const assistant = await requireAssistant(engine, named).catch((error: unknown) => {
    // Whoever works with the request says what is wrong with it.
    if (error instanceof AppError && !error.retryable) return undefined;
    throw error;
  });
  return engine.privacy.of(assistant?.graph_id);
}

/**
 * What a saver keeps of a value of the graph. What is still found there was in a node's memory: it is taken out, and the
 * log says so once for each channel and kind, never what it was.
 */
export function keeping(
  { privacy, log }: Pick<Engine, "privacy" | "log">,
  graphId: unknown,
  about: { readonly thread_id: string; readonly run_id?: string },
): <Kept>(value: Kept, channel: string) => Kept {
  const guard = privacy.of(graphId);
  const told = new Set<string>();
  return (value, channel) =>
    guard.value(value, (kind) => {
      const found = `${channel} ${kind}`;
      if (told.has(found)) return;
      told.add(found);
      log.warn("privacy.masked", { ...about, graph_id: graphId, channel, kind });
    });
}

// What is kept of a checkpoint's making: LangGraph's own words, and what the run that made it says of itself, by which a
// thread's history can be searched.
import type { RunnableConfig } from "@langchain/core/runnables";
import type { CheckpointMetadata } from "@langchain/langgraph-checkpoint";

// With run_id LangGraph knows a resumed run from a new one.
const OF_CONFIG = ["run_id", "graph_id", "assistant_id"];

/** JSON for a jsonb column, which takes neither NUL nor lone surrogates. */
export function metadataText(
  { metadata: given }: RunnableConfig,
  metadata: CheckpointMetadata,
  ofRun: Readonly<Record<string, unknown>>,
): string {
  const kept = OF_CONFIG.filter((key) => given?.[key] !== undefined).map((key) => [key, given?.[key]]);
  return JSON.stringify({ ...ofRun, ...metadata, ...Object.fromEntries(kept) }, (_, value: unknown) =>
    typeof value === "string" ? value.toWellFormed().replaceAll("\0", "") : value,
  );
}

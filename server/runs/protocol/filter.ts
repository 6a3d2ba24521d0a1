// Which events of a thread a client wants to see.
import { isPrefixMatch, isSupportedChannel } from "@langchain/langgraph/stream";
import type { Shown } from "./entries.ts";

/** As clients ask; namespaces are prefixes, and `depth` counts what is below them. */
export interface Filter {
  readonly channels: readonly string[];
  readonly namespaces?: readonly (readonly string[])[] | undefined;
  readonly depth?: number | undefined;
}

export const isChannel = (name: string): boolean => isSupportedChannel(name);

/** Whether an event is to be shown. */
export function isWanted(event: Pick<Shown, "name" | "namespace">, filter: Filter): boolean {
  const { name, namespace } = event;
  const channel = name.startsWith("input.") ? "input" : name;
  const { channels, namespaces = [], depth } = filter;
  if (!channels.includes(channel) && !(channel.startsWith("custom:") && channels.includes("custom")))
    return false;
  if (namespaces.length === 0) return true;
  return namespaces.some(
    (prefix) =>
      isPrefixMatch([...namespace], [...prefix]) &&
      (depth === undefined || namespace.length - prefix.length <= depth),
  );
}

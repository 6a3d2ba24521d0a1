// How often a tool may be called in a minute. The server counts for all servers of its database together; without one this
// process counts for itself.
import { uptime } from "../clock.ts";
import type { ToolServices } from "../services.ts";
import type { Tool } from "./define.ts";

const MINUTE_MS = 60_000;

interface Minute {
  readonly endsAt: number;
  count: number;
}
const minutes = new Map<string, Minute>();

/** Takes one call of what is left. Returns 0, or in how many milliseconds there is something left again. */
export async function takeOne({ name, perMinute }: Tool, server: ToolServices | undefined): Promise<number> {
  if (perMinute === undefined) return 0;
  if (server) return server.take(name, perMinute);
  const known = minutes.get(name);
  const minute = known && known.endsAt > uptime() ? known : { endsAt: uptime() + MINUTE_MS, count: 0 };
  minutes.set(name, minute);
  minute.count += 1;
  return minute.count > perMinute ? Math.max(1, minute.endsAt - uptime()) : 0;
}

// The same cache in Redis. Nothing waits for a connection: while there is none a command fails at once, and the client
// goes on trying in the background.
import type { createClient } from "@redis/client";
import { later } from "../clock.ts";
import type { CacheKind, CacheStore } from "./caches.ts";
import type { Scope } from "./scope.ts";

const CONNECT_MS = 500;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2000;
/** Commands that may wait for their answers; more fail at once. */
const MOST_COMMANDS = 10_000;
const SCAN_COUNT = 500;

type Client = ReturnType<typeof createClient>;

/** Waits a moment for the connection; a Redis that is not there yet is found later. */
export async function openRedis(url: string, { tenantId }: Scope): Promise<CacheStore> {
  const { createClient, RESP_TYPES } = await import("@redis/client"); // loaded only where it is used
  const open = (): { client: Client; connected: Promise<unknown> } => {
    const client: Client = createClient({
      url,
      disableOfflineQueue: true,
      commandsQueueMaxLength: MOST_COMMANDS,
      socket: {
        connectTimeout: CONNECT_MS,
        reconnectStrategy: (retries) => Math.min(FIRST_RETRY_MS * 2 ** Math.min(retries, 8), LAST_RETRY_MS),
      },
    });
    client.on("error", () => undefined); // whoever asks something then is told
    return { client, connected: client.connect().catch(() => undefined) }; // closed before it was connected
  };
  const first = open();
  let { client } = first;
  await briefly(first.connected);
  const keyOf = (kind: CacheKind, key: string): string => `holdfast:${tenantId}:${kind}:${key}`;
  return {
    name: "redis",
    get: async (kind, keys) => {
      const bytes = client.withTypeMapping({ [RESP_TYPES.BLOB_STRING]: Buffer });
      const values = await bytes.mGet(keys.map((key) => keyOf(kind, key)));
      return new Map(
        values.flatMap((value, index) => (value === null ? [] : [[keys[index] ?? "", Buffer.from(value)]])),
      );
    },
    put: async (kind, entries) => {
      await Promise.all(
        entries.map(({ key, value, ttlMs }) =>
          client.set(keyOf(kind, key), Buffer.from(value), { expiration: { type: "PX", value: ttlMs } }),
        ),
      );
    },
    renew: async (kind, keys, ttlMs) => {
      await Promise.all(keys.map((key) => client.pExpire(keyOf(kind, key), ttlMs)));
    },
    clear: async (kind, prefix) => {
      // What begins so are our own names, which hold nothing that a pattern would read otherwise.
      const found = client.scanIterator({ MATCH: `${keyOf(kind, prefix)}*`, COUNT: SCAN_COUNT });
      for await (const keys of found) if (keys.length > 0) await client.unlink(keys);
    },
    // A connection whose other end is gone without a word looks alive for minutes, or as if it were being made.
    reopen: (isLate) => {
      if (client.isReady && !isLate) return;
      client.destroy();
      ({ client } = open());
    },
    close: async () => client.destroy(),
  };
}

async function briefly(connected: Promise<unknown>): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>();
  const stop = later(CONNECT_MS, resolve);
  await Promise.race([connected, promise]);
  stop();
}

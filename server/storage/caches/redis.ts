// The same cache in Redis. Nothing waits for a connection: while there is none a command fails at once, and the client
// goes on trying in the background.
import { once } from "node:events";
import type { createClient } from "@redis/client";
import { within } from "../../clock.ts";
import type { Scope } from "../scope.ts";
import type { CacheKind, CacheStore } from "./store.ts";

const CONNECT_MS = 500;
const FIRST_RETRY_MS = 50;
const LAST_RETRY_MS = 2000;
/** Commands that may wait for their answers; more fail at once. */
const MOST_COMMANDS = 10_000;
const SCAN_COUNT = 500;

export type RedisClient = ReturnType<typeof createClient>;

/** Begins to connect, and goes on as long as it is not destroyed; a command fails at once while it is not connected. */
export async function connectRedis(url: string): Promise<() => RedisClient> {
  const { createClient } = await import("@redis/client"); // loaded only where it is used
  return () => {
    const client: RedisClient = createClient({
      url,
      disableOfflineQueue: true,
      commandsQueueMaxLength: MOST_COMMANDS,
      socket: {
        connectTimeout: CONNECT_MS,
        reconnectStrategy: (retries) => Math.min(FIRST_RETRY_MS * 2 ** Math.min(retries, 8), LAST_RETRY_MS),
      },
    });
    client.on("error", () => undefined); // whoever asks something then is told
    client.connect().catch(() => undefined); // closed before it was connected
    return client;
  };
}

/** A moment for a connection that was just begun. */
export async function untilReady(client: RedisClient): Promise<void> {
  if (!client.isReady) await within(once(client, "ready"), CONNECT_MS).catch(() => undefined);
}

/** Waits a moment for the connection; a Redis that is not there yet is found later. */
export async function openRedis(url: string, { tenantId }: Scope): Promise<CacheStore> {
  const { RESP_TYPES } = await import("@redis/client");
  const open = await connectRedis(url);
  let client = open();
  await untilReady(client);
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
      client = open();
    },
    close: async () => client.destroy(),
  };
}

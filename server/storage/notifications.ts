// NOTIFY and LISTEN: hints between instances, on one channel. Nothing depends on their arrival.
import type { Queryable, Session } from "./database.ts";

export type Notification =
  | { readonly kind: "events"; readonly runIds: readonly string[] }
  | { readonly kind: "ready" }
  | { readonly kind: "cancel"; readonly runIds: readonly string[] }
  /** A model failed so often that nobody should ask it for so long. */
  | { readonly kind: "breaker"; readonly model: string; readonly ms: number };

const CHANNEL = "holdfast";
// PostgreSQL refuses payloads of 8000 bytes. Ids of threads may have 255 characters, of four bytes each.
const MOST_BYTES = 7900;

const notifyRows = `/* notify */ select pg_notify('${CHANNEL}', payload) from unnest($1::text[]) as payload`;

/** Sends hints to every instance that listens, this one included. */
export async function notify(on: Queryable, notifications: readonly Notification[]): Promise<void> {
  await on.query(notifyRows, [notifications.flatMap(payloadsOf)]);
}

/** Hears hints for the life of the session. */
export async function listen(session: Session, heard: (notification: Notification) => void): Promise<void> {
  session.onNotification((payload) => {
    const [kind = "", ids = "", ms] = payload.split(" ");
    if (kind === "ready") heard({ kind });
    if (kind === "breaker") heard({ kind, model: decodeURIComponent(ids), ms: Number(ms) });
    if (kind === "events" || kind === "cancel") heard({ kind, runIds: ids.split(",") });
  });
  await session.query(`listen ${CHANNEL}`);
}

function payloadsOf(notification: Notification): string[] {
  if (notification.kind === "ready") return ["ready"];
  if (notification.kind === "breaker")
    return [`breaker ${encodeURIComponent(notification.model)} ${notification.ms}`];
  const { kind, runIds } = notification;
  const payloads: string[] = [];
  let ids: string[] = [];
  let bytes = 0;
  for (const id of runIds) {
    const size = Buffer.byteLength(id) + 1;
    if (kind.length + bytes + size > MOST_BYTES) {
      payloads.push(`${kind} ${ids.join()}`);
      [ids, bytes] = [[], 0];
    }
    ids.push(id);
    bytes += size;
  }
  if (ids.length > 0) payloads.push(`${kind} ${ids.join()}`);
  return payloads;
}

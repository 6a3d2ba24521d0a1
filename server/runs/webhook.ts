// Delivers call-backs from the outbox until the receiver took them. What was accepted is sent at least once, by whichever
// instance lives, always under the same webhook-id, so that a receiver can drop repeats.
import { Webhook } from "standardwebhooks";
import { deadline, now, sleep } from "../clock.ts";
import { AppError, messageOf } from "../errors.ts";
import { faultPoint } from "../faults.ts";
import type { Egress } from "../services.ts";
import type { Database } from "../storage/database.ts";
import { claimWebhooks, deferWebhook, finishWebhook, openWebhook, parkWebhook } from "../storage/webhooks.ts";
import type { DueWebhook } from "../storage/webhooks.ts";
import type { Log } from "../telemetry/log.ts";

export interface WebhookOptions {
  readonly database: Database;
  readonly log: Log;
  readonly egress: Egress;
  /** Each signs; a receiver that knows one of them is satisfied. */
  readonly secrets: readonly string[];
  /** Where this server itself is reached: call-backs that begin with a slash go there. */
  readonly loopbackUrl?: string | undefined;
  /** Waits after each failed attempt; after the last one a row is parked. */
  readonly backOffMs?: readonly number[];
}

export interface Webhooks {
  /** Looks for due rows at once, such as when a run has just ended. */
  wake(): void;
  stop(): Promise<void>;
}

const [SECOND_MS, MINUTE_MS, HOUR_MS] = [1000, 60_000, 3_600_000];
const BACK_OFF_MS = [
  5 * SECOND_MS,
  30 * SECOND_MS,
  2 * MINUTE_MS,
  10 * MINUTE_MS,
  HOUR_MS,
  6 * HOUR_MS,
  24 * HOUR_MS,
];
const JITTER = 0.2;
// Only if nobody wakes the sender.
const POLL_MS = 30_000;
const TIMEOUT_MS = 10_000;
// Longer than an attempt can take: a row is sent by one sender at a time.
const LEASE_MS = 3 * TIMEOUT_MS;
const MAX_AT_ONCE = 64;
// A receiver that takes connections and never answers holds no more senders than these.
const MAX_PER_ORIGIN = 16;
const GONE = 410;

type Outcome =
  | { readonly isDelivered: true }
  | { readonly isDelivered: false; error: string; isFinal: boolean };

/**
 * For the door: a webhook is a public address, or a path of this server.
 * @throws WebhookRefused
 */
export function checkWebhook(egress: Egress, url: string): void {
  if (!/^\/(?![/\\])/.test(url)) egress.assertPublicUrl(url);
}

/** Sends what is due, for as long as the server lives. */
export function startWebhooks(options: WebhookOptions): Webhooks {
  const stopping = new AbortController();
  const sending = new Map<Promise<void>, string>();
  let woken = new AbortController();
  const send = (webhook: DueWebhook): void => {
    const sent = deliver(options, webhook, stopping.signal)
      .catch((error: unknown) => {
        // Its lease runs out, and somebody tries again.
        options.log.warn("webhook.undecided", { webhook_id: webhook.webhook_id, reason: messageOf(error) });
      })
      .finally(() => {
        sending.delete(sent);
        woken.abort();
      });
    sending.set(sent, webhook.origin);
  };
  const loop = async (): Promise<void> => {
    while (!stopping.signal.aborted) {
      woken = new AbortController();
      const { limit, busy } = roomBeside([...sending.values()]);
      const due = limit > 0 ? await claim(options, { limit, busy }) : [];
      for (const webhook of due) send(webhook);
      if (due.length > 0 && due.length === limit) continue;
      await sleep(POLL_MS, AbortSignal.any([stopping.signal, woken.signal]));
    }
    await Promise.all(sending.keys());
  };
  const looping = loop();
  return {
    wake: () => woken.abort(),
    stop: async () => {
      stopping.abort();
      await looping;
    },
  };
}

/** How many may be claimed at once, so that no origin gets more than its part even if all of them are for one. */
function roomBeside(origins: readonly string[]): { limit: number; busy: string[] } {
  const counts = new Map<string, number>();
  for (const origin of origins) counts.set(origin, (counts.get(origin) ?? 0) + 1);
  const busy = [...counts.keys()].filter((origin) => (counts.get(origin) ?? 0) >= MAX_PER_ORIGIN);
  const others = [...counts.values()].filter((count) => count < MAX_PER_ORIGIN);
  const limit = Math.min(MAX_AT_ONCE - origins.length, MAX_PER_ORIGIN - Math.max(0, ...others));
  return { limit, busy };
}

async function claim(
  { database, log, loopbackUrl }: WebhookOptions,
  room: { limit: number; busy: readonly string[] },
): Promise<DueWebhook[]> {
  try {
    return await claimWebhooks(database, {
      ...room,
      leaseMs: LEASE_MS,
      hasLoopback: loopbackUrl !== undefined,
    });
  } catch (error) {
    log.warn("webhook.unclaimed", { reason: messageOf(error) });
    return [];
  }
}

async function deliver(options: WebhookOptions, webhook: DueWebhook, signal: AbortSignal): Promise<void> {
  const { database, log, backOffMs = BACK_OFF_MS } = options;
  faultPoint("webhook.sending");
  const outcome = await attempt(options, webhook, signal);
  faultPoint("webhook.sent");
  const facts = { webhook_id: webhook.webhook_id, run_id: webhook.run_id, attempt: webhook.attempts };
  if (outcome.isDelivered) {
    await finishWebhook(database, webhook);
    log.info("webhook.delivered", facts);
    return;
  }
  // That this server stops says nothing of the receiver: whoever finds the row next sends it again.
  if (signal.aborted) return;
  const wait = outcome.isFinal ? undefined : backOffMs[webhook.attempts - 1];
  if (wait === undefined) {
    await parkWebhook(database, webhook, outcome.error);
    log.error("webhook.parked", { ...facts, reason: outcome.error });
    return;
  }
  const ms = Math.round(wait * (1 - JITTER + 2 * JITTER * Math.random()));
  await deferWebhook(database, webhook, { ms, error: outcome.error });
  log.warn("webhook.failed", { ...facts, reason: outcome.error, retry_ms: ms });
}

async function attempt(options: WebhookOptions, webhook: DueWebhook, signal: AbortSignal): Promise<Outcome> {
  const sentAt = new Date(now());
  let body: string;
  try {
    body = stamped((await openWebhook(options.database, webhook)).payload, sentAt);
  } catch (error) {
    if (!(error instanceof AppError) || error.retryable) throw error;
    return { isDelivered: false, error: error.message, isFinal: true };
  }
  const headers = { "content-type": "application/json", ...signed(options.secrets, webhook, body, sentAt) };
  try {
    const status = await post(options, webhook.url, { headers, body, signal });
    if (status >= 200 && status < 300) return { isDelivered: true };
    return { isDelivered: false, error: `The receiver answered ${status}.`, isFinal: status === GONE };
  } catch (error) {
    return { isDelivered: false, error: messageOf(error) || String(error), isFinal: false };
  }
}

async function post(
  { egress, loopbackUrl }: WebhookOptions,
  url: string,
  request: { headers: Record<string, string>; body: string; signal: AbortSignal },
): Promise<number> {
  if (!url.startsWith("/")) {
    // A receiver that answers 2xx has taken it, also when the rest of its answer never comes.
    const options = { method: "POST", timeoutMs: TIMEOUT_MS, maxBytes: 0 } as const;
    return (await egress.send(url, { ...request, ...options })).status;
  }
  // Joined as text: resolved as a reference, //host would leave this server.
  const response = await fetch(`${loopbackUrl}${url}`, {
    ...request,
    method: "POST",
    redirect: "error",
    signal: deadline(TIMEOUT_MS, request.signal),
  });
  await response.body?.cancel().catch(() => undefined);
  return response.status;
}

/** The stored object with the time of this attempt; nothing else in it is touched. */
function stamped(payload: string, sentAt: Date): string {
  const head = payload.trimEnd().slice(0, -1).trimEnd();
  const comma = head.endsWith("{") ? "" : ",";
  return `${head}${comma}"webhook_sent_at":${JSON.stringify(sentAt.toISOString())}}`;
}

/** Headers as in standardwebhooks.com. Without a secret there is still the id, against repeats. */
function signed(
  secrets: readonly string[],
  { webhook_id: id }: DueWebhook,
  body: string,
  sentAt: Date,
): Record<string, string> {
  const signatures = secrets.map((secret) => new Webhook(secret).sign(id, sentAt, body));
  const stamp = String(Math.floor(sentAt.getTime() / 1000));
  return {
    "webhook-id": id,
    "webhook-timestamp": stamp,
    ...(signatures.length > 0 ? { "webhook-signature": signatures.join(" ") } : {}),
  };
}

// holdfast webhooks: which call-backs wait, were delivered or are parked; and sends parked ones again.
import type { Config } from "../config.ts";
import { isUuid } from "../ids.ts";
import { listWebhooks, replayWebhooks } from "../storage/webhooks.ts";
import type { WebhookRow } from "../storage/webhooks.ts";
import { withDatabase } from "./database.ts";

type Say = (text: string) => void;

/** @returns the exit code: 0, also when there is none */
export async function showWebhooks(
  config: Config,
  options: { state?: WebhookRow["state"]; limit: number; json?: boolean; say: Say },
): Promise<number> {
  const { state, limit, json = false, say } = options;
  const rows = await withDatabase(
    config,
    (database) => listWebhooks(database, { state, limit }),
    json ? undefined : say,
  );
  if (json) say(JSON.stringify(rows));
  else if (rows.length === 0) say(state ? `No webhook is ${state}.` : "There are no webhooks.");
  else for (const row of rows) say(lineOf(row));
  return 0;
}

/** @returns the exit code: 0, 2 when an id is none, or 3 when one of the ids is not parked */
export async function resendWebhooks(
  config: Config,
  options: { ids: readonly string[]; all?: boolean; json?: boolean; say: Say },
): Promise<number> {
  const { ids, all = false, json = false, say } = options;
  const wrong = ids.find((id) => !isUuid(id));
  if (wrong !== undefined || ids.length > 0 === all) {
    say(wrong === undefined ? "Name webhooks by their ids, or use --all." : `${wrong} is no webhook id.`);
    return 2;
  }
  const replayed = await withDatabase(
    config,
    (database) => replayWebhooks(database, all ? undefined : ids),
    json ? undefined : say,
  );
  const missing = ids.filter((id) => !replayed.includes(id));
  if (json) say(JSON.stringify({ replayed, missing }));
  else say(`Sending again: ${replayed.length}.${missing.map((id) => `\n${id} is not parked.`).join("")}`);
  return missing.length > 0 ? 3 : 0;
}

/** An address may hold a token in its path or query: only its host is shown. */
function lineOf({
  webhook_id: id,
  run_id: runId,
  url,
  state,
  attempts,
  error,
  created_at: at,
}: WebhookRow): string {
  const host = URL.parse(url)?.host ?? "this server";
  const head = `${id} ${state} ${at.toISOString()} run ${runId} to ${host}, ${attempts} attempts`;
  return error ? `${head}: ${error}` : head;
}

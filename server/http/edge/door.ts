// What clients send is looked at before anything else is done with it: personal data and secrets are gone before a row
// holds them. What is used to find things is refused instead, because another name would find something else.
import type { Context } from "hono";
import { PersonalIdentifier } from "../../errors.ts";
import type { Guard } from "../../privacy/guard.ts";
import type { Engine } from "../../runs/engine.ts";
import { guardAsked, guardOfAssistant } from "../../runs/guards.ts";
import { findCron } from "../../storage/crons.ts";
import { findThread } from "../../storage/threads.ts";
import { readBody } from "./ingress.ts";

type Held = Pick<Engine, "privacy">;

/** The body of a request that belongs to no graph. @throws what `readBody` throws */
export async function readGuarded({ privacy }: Held, context: Context): Promise<unknown> {
  return privacy.of().value(await readBody(context));
}

/**
 * The body that makes an assistant or changes one: the graph that it is for says what of it may be kept.
 * @param named the assistant that is changed
 * @throws what `readBody` throws
 */
export async function readForGraph(engine: Engine, context: Context, named?: string): Promise<unknown> {
  const body = await readBody(context);
  const { graph_id: graphId } = Object(body) as Record<string, unknown>;
  const isNamed = typeof graphId === "string";
  const guard = isNamed ? engine.privacy.of(graphId) : await guardOfAssistant(engine, named);
  return isNamed
    ? { ...guard.value({ ...Object(body), graph_id: "" }), graph_id: graphId }
    : guard.value(body);
}

/** The body that changes a thread: the graph that it is of says what of it may be kept. @throws what `readBody` throws */
export async function readForThread(engine: Engine, context: Context, threadId: string): Promise<unknown> {
  const body = await readBody(context);
  const thread = await findThread(engine.database, threadId);
  return engine.privacy.of(thread?.metadata["graph_id"]).value(body);
}

/**
 * The body of a cron: its runs are looked at once more when they are accepted, but what it keeps until then belongs to no
 * thread, and can be kept apart for nobody.
 * @param cronId of the one that is changed
 * @throws what `readBody` throws; PersonalIdentifier for a call-back's address
 */
export async function readForCron(engine: Engine, context: Context, cronId?: string): Promise<unknown> {
  const body = await readBody(context);
  const cron = cronId === undefined ? undefined : await findCron(engine.database, cronId);
  return guardRequest(engine, body, { of: cron?.assistant_id, mayWait: false });
}

/**
 * The body of a request to run an assistant: its graph says what of it may be kept. A list is taken one by one.
 * @throws what `readBody` throws; PersonalIdentifier for a call-back's address
 */
export async function readForAssistant(engine: Engine, context: Context): Promise<unknown> {
  const body = await readBody(context);
  return Array.isArray(body)
    ? Promise.all(body.map((one) => guardRequest(engine, one)))
    : guardRequest(engine, body);
}

async function guardRequest(
  engine: Engine,
  request: unknown,
  { of, mayWait }: { of?: string | undefined; mayWait: boolean } = { mayWait: true },
): Promise<unknown> {
  if (typeof request !== "object" || request === null) return request;
  const { assistant_id: named, webhook, ...rest } = request as Record<string, unknown>;
  const guard = await guardOfAssistant(engine, of ?? named);
  if (typeof webhook === "string") refuseIdentifier(guard, "webhook", webhook, ["IP"]);
  const names = { assistant_id: named, webhook };
  const given = Object.entries(names).filter(([, value]) => value !== undefined);
  const guarded = mayWait ? guardAsked(guard, rest) : guard.value(rest);
  return { ...guarded, ...Object.fromEntries(given) };
}

/** @param but kinds that may stand in it @throws PersonalIdentifier when something is found in it */
export function refuseIdentifier(
  guard: Guard,
  what: string,
  text: string,
  but: readonly string[] = [],
): void {
  const kinds: string[] = [];
  guard.text(text, (kind) => {
    if (!but.includes(kind)) kinds.push(kind);
  });
  if (kinds.length > 0) throw new PersonalIdentifier(what, kinds);
}

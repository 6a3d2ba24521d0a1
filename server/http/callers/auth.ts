// Who is calling, and what he may do: the one place where routes ask. Without auth in langgraph.json everybody may do
// everything, and nothing here costs a statement.
import type { MiddlewareHandler } from "hono";
import { routePath } from "hono/route";
import { AssistantNotFound, CronNotFound, RunNotFound, ThreadNotFound } from "../../errors.ts";
import { assistantIdOf } from "../../ids.ts";
import { assistantIdFor, noAssistantFor } from "../../runs/assistants.ts";
import type { AuthEvent, Authority, Caller, Events, Permit } from "../../runs/auth.ts";
import { getRunFacts } from "../../runs/create.ts";
import type { Engine } from "../../runs/engine.ts";
import { isAssistantVisible, isCronVisible, isThreadVisible } from "../../storage/auth-filter.ts";
import type { AuthFilter } from "../../storage/auth-filter.ts";
import type { RunFacts } from "../../storage/runs.ts";
import { findThread } from "../../storage/threads.ts";
import { ACCESS } from "./access.ts";
import { accessOf, keepAccess } from "./asker.ts";
import type { Access, Asker } from "./asker.ts";
import type { LoginGuard } from "./limits.ts";
import type { Bindings } from "../bindings.ts";

/** Under which the user's own app finds who is calling, as with the official servers. */
const FOR_APPS = "auth";

/**
 * Lets in whom the user's authenticate() lets in, and keeps back an answer that nobody asked for.
 * @param isOpen which paths everybody may read
 * @param guardLogin turns away who failed too often
 */
export function authentication(
  authority: Authority,
  isOpen: (path: string) => boolean,
  guardLogin?: LoginGuard,
): MiddlewareHandler<Bindings> {
  return async (context, next) => {
    const { method, path } = context.req;
    const isReading = method === "GET" || method === "HEAD";
    if (isReading && isOpen(path)) return next();
    const login = (): Promise<Caller> => authority.authenticate(context.req.raw);
    const caller = await (guardLogin ? guardLogin(context.env.incoming, login) : login());
    const access: Access = { authority, caller, asked: new Set() };
    keepAccess(context, access);
    context.set(FOR_APPS as never, { user: caller.user, scopes: caller.permissions } as never);
    await next();
    const route = `${context.req.method} ${routePath(context)}`;
    const needed = ACCESS[route] ?? []; // none is a route of the user's own app
    const missed = needed === "open" ? [] : needed.filter((event) => !access.asked.has(event));
    if (missed.length > 0 && context.res.ok)
      throw new Error(`${route} answered without asking for ${missed.join(", ")}`);
    return undefined;
  };
}

/** Auth that tells callers apart by nothing lets each do everything. */
export const mayAll = (context: Asker): boolean => accessOf(context)?.authority.hasHandlers === false;

/**
 * Asks whether the caller may do this, and to which rows.
 * @param value what is asked for, in the official form; the handler may change it, so go on with the one that is returned
 * @throws AccessDenied, AuthRefused, AuthInvalid
 */
export async function authorize<Resource extends keyof Events, Value extends object>(
  context: Asker,
  resource: Resource,
  action: Events[Resource],
  value: Value,
): Promise<Permit<Value>> {
  const access = accessOf(context);
  if (!access) return { filter: undefined, value };
  // A resource and one of its actions: the type of the two together says no more.
  const event = `${resource}:${action}` as AuthEvent;
  access.asked.add(event);
  return access.authority.authorize(access.caller, event, value);
}

/** @throws ThreadNotFound for a thread that is not the caller's, as for one that does not exist */
export async function guardThread(
  { engine, context }: { engine: Engine; context: Asker },
  action: "read" | "update" | "delete",
  threadId: string,
  asked: object = {},
): Promise<void> {
  const { filter } = await authorize(context, "threads", action, { thread_id: threadId, ...asked });
  await requireThread(engine, threadId, filter);
}

/** @throws ThreadNotFound */
export async function requireThread(
  engine: Engine,
  threadId: string,
  filter: AuthFilter | undefined,
): Promise<void> {
  if (filter && !(await isThreadVisible(engine.database, threadId, filter)))
    throw new ThreadNotFound(threadId);
}

/**
 * Whether the caller may follow a thread, which need not be there yet.
 * @returns looks again, for when it is there: somebody else may have made it meanwhile
 * @throws ThreadNotFound for a thread that is not the caller's
 */
export async function guardFollowing(
  { engine, context }: { engine: Engine; context: Asker },
  threadId: string,
): Promise<() => Promise<void>> {
  const { filter } = await authorize(context, "threads", "read", { thread_id: threadId });
  if (filter && (await findThread(engine.database, threadId))) await requireThread(engine, threadId, filter);
  return () => requireThread(engine, threadId, filter);
}

/** A run on a thread of the caller. @throws RunNotFound */
export async function guardRun(
  { engine, context }: { engine: Engine; context: Asker },
  action: "read" | "update" | "delete",
  at: { threadId: string | undefined; runId: string },
  asked: object = {},
): Promise<RunFacts> {
  const { threadId, runId } = at;
  const { filter } = await authorize(context, "threads", action, { thread_id: threadId, ...asked });
  const run = await getRunFacts(engine, threadId, runId);
  if (filter && !(await isThreadVisible(engine.database, run.thread_id, filter))) throw new RunNotFound();
  return run;
}

/**
 * Graphs' own assistants are read by everybody.
 * @returns what was asked, as the handler left it
 * @throws AssistantNotFound
 */
export async function guardAssistant<Asked extends object>(
  { engine, context }: { engine: Engine; context: Asker },
  action: "read" | "update" | "delete",
  named: string,
  asked: Asked,
): Promise<Asked> {
  const id = assistantIdFor(engine, named);
  const { filter, value } = await authorize(context, "assistants", action, { assistant_id: id, ...asked });
  const isFree = filter === undefined || (action === "read" && ownIdsOf(engine).includes(id));
  if (!isFree && !(await isAssistantVisible(engine.database, id, filter)))
    throw new AssistantNotFound("Assistant not found");
  return value;
}

/** The assistant of a run: a graph's own needs no permission but that for the run. @throws AssistantNotFound */
export async function guardAssistantOfRun(
  { engine, context }: { engine: Engine; context: Asker },
  named: string,
): Promise<void> {
  if (!accessOf(context) || ownIdsOf(engine).includes(assistantIdFor(engine, named))) return;
  await guardAssistant({ engine, context }, "read", named, {}).catch((error: unknown) => {
    throw error instanceof AssistantNotFound ? noAssistantFor(named) : error;
  });
}

/** @throws CronNotFound */
export async function requireCron(
  engine: Engine,
  cronId: string,
  filter: AuthFilter | undefined,
): Promise<void> {
  if (filter && !(await isCronVisible(engine.database, cronId, filter))) throw new CronNotFound();
}

/** The assistants that the server made for its graphs. */
export const ownIdsOf = ({ graphs }: Pick<Engine, "graphs">): string[] =>
  [...graphs.keys()].map(assistantIdOf);

// How much one caller may ask for: runs and requests in a minute, streams at a time, and logins that fail. It is looked at
// once it is known who is calling and before a body is read; probes are never counted. Without limits nothing is here.
import type { IncomingMessage } from "node:http";
import type { MiddlewareHandler } from "hono";
import type { Config } from "../../config.ts";
import { AuthRefused, RateLimited, TooManyStreams } from "../../errors.ts";
import type { Counter, CounterStore, Usage } from "../../storage/rate-limits.ts";
import { PROBES } from "./access.ts";
import { callerOf } from "./asker.ts";
import type { Asker } from "./asker.ts";
import { addressReader } from "./address.ts";
import type { Bindings } from "../bindings.ts";

type LimitOptions = Pick<
  Config,
  "limitRuns" | "limitRequests" | "limitFailedLogins" | "limitStreams" | "limitBy" | "trustedProxies"
>;

/** Lets somebody log in, unless too many from his address could not. */
export type LoginGuard = <Caller>(incoming: IncomingMessage, login: () => Promise<Caller>) => Promise<Caller>;

export interface Limits {
  /** In words for a person. */
  readonly text: string;
  /** Comes after authentication. */
  readonly middleware: MiddlewareHandler<Bindings>;
  readonly guardLogin: LoginGuard;
}

/** What is counted of a caller while his request, or his socket, lasts. */
interface Meter {
  readonly runs: (count: number) => Promise<void>;
  readonly request: () => Promise<void>;
}

const KEY = "holdfast.limits";
// A batch and a command say only in their body how many runs they start, and count for a request besides.
const STARTS_RUN = /^(?:\/threads\/[^/]+)?\/runs(?:\/(?:stream|wait|crons|[^/]+\/retry))?$/;
const STREAMS = /^\/(?:threads|runs)(?:\/[^/]+)*\/(?:stream(?:\/events)?|wait|join)$/;

/**
 * The limits that are set; undefined: none.
 * @throws ConfigInvalid
 */
export function openLimits(store: CounterStore, options: LimitOptions): Limits | undefined {
  const { limitRuns, limitRequests, limitFailedLogins, limitStreams, limitBy } = options;
  const addressOf = addressReader(options.trustedProxies);
  if (limitRuns + limitRequests + limitFailedLogins + limitStreams === 0) return undefined;
  const counterOf = (name: string, most: number): Counter | undefined =>
    most > 0 ? store.counter({ name, most }) : undefined;
  const runs = counterOf("runs", limitRuns);
  const requests = counterOf("requests", limitRequests);
  const logins = counterOf("logins", limitFailedLogins);
  const takeSlot = limitStreams > 0 ? slots(limitStreams) : undefined;

  const told = [
    `${limitRuns} runs`,
    `${limitRequests} other requests`,
    `${limitFailedLogins} failed logins`,
    `${limitStreams} open streams`,
  ].filter((one) => !one.startsWith("0 "));
  return {
    text: `${told.join(", ")}, for each ${limitBy} (docs/limits.md)`,
    guardLogin: logins ? guardOf(logins, addressOf) : (_incoming, login) => login(),
    middleware: async (context, next) => {
      const { method, path } = context.req;
      if (PROBES.has(path)) return next();
      const { incoming, outgoing } = context.env;
      const identity = limitBy === "identity" ? callerOf(context)?.user.identity : undefined;
      const who = identity === undefined ? `address ${addressOf(incoming)}` : `identity ${identity}`;
      const take = async (limit: Counter | undefined, what: string, count: number): Promise<void> => {
        if (!limit) return;
        const usage = await limit.take(who, count);
        outgoing.setHeader("X-RateLimit-Limit", limit.most);
        outgoing.setHeader("X-RateLimit-Remaining", usage.remaining);
        outgoing.setHeader("X-RateLimit-Reset", Math.ceil(usage.endsInMs / 1000));
        refuseOver(limit, usage, what, count);
      };
      const meter: Meter = {
        runs: (count) => take(runs, "runs", count),
        request: () => take(requests, "requests", 1),
      };
      context.set(KEY as never, meter as never);
      if (takeSlot && STREAMS.test(path)) holdWhileOpen(context.env, takeSlot(who));
      await (method === "POST" && STARTS_RUN.test(path) ? meter.runs(1) : meter.request());
      return next();
    },
  };
}

/**
 * Counts runs that the caller is about to start.
 * @throws RateLimited, DatabaseUnavailable
 */
export const countRuns = async (context: Asker, count: number): Promise<void> =>
  meterOf(context)?.runs(count);

/** Counts a request that came over a socket. @throws RateLimited, DatabaseUnavailable */
export const countRequest = async (context: Asker): Promise<void> => meterOf(context)?.request();

const meterOf = (context: Asker): Meter | undefined => context.get(KEY) as Meter | undefined;

function refuseOver(limit: Counter, usage: Usage, what: string, asked: number): void {
  if (!usage.isAllowed) throw new RateLimited(what, { perMinute: limit.most, asked, ms: usage.endsInMs });
}

/**
 * Nobody guesses on: once it is used up, a right login is not tried either, and of many that are tried at once those
 * that come out after it are not told whether they were right.
 */
function guardOf(logins: Counter, addressOf: (incoming: IncomingMessage) => string): LoginGuard {
  const what = "failed logins";
  const counting = new Map<string, Promise<unknown>>();
  const refuseIfEmpty = async (address: string): Promise<void> => {
    const ms = await logins.emptyForMs(address);
    if (ms > 0) throw new RateLimited(what, { perMinute: logins.most, asked: 1, ms });
  };
  const count = (address: string): Promise<Usage> => {
    const taken = logins.take(address, 1);
    const all = Promise.allSettled([counting.get(address), taken]).finally(() => {
      if (counting.get(address) === all) counting.delete(address);
    });
    counting.set(address, all);
    return taken;
  };
  return async (incoming, login) => {
    const address = addressOf(incoming);
    await refuseIfEmpty(address);
    try {
      const caller = await login();
      await counting.get(address);
      await refuseIfEmpty(address);
      return caller;
    } catch (error) {
      const isFailed = error instanceof AuthRefused && (error.status === 401 || error.status === 403);
      if (isFailed) refuseOver(logins, await count(address), what, 1);
      throw error;
    }
  };
}

/** Counts what each caller holds open. The returned function takes a slot, and gives what frees it. */
function slots(most: number): (who: string) => () => void {
  const open = new Map<string, number>();
  return (who) => {
    const count = open.get(who) ?? 0;
    if (count >= most) throw new TooManyStreams(most);
    open.set(who, count + 1);
    return () => {
      const left = (open.get(who) ?? 1) - 1;
      if (left > 0) open.set(who, left);
      else open.delete(who);
    };
  };
}

/** Frees the slot when the answer is sent or its client gone. The answer to a WebSocket is never sent: its connection tells. */
function holdWhileOpen({ incoming, outgoing }: Bindings["Bindings"], free: () => void): void {
  const { socket } = incoming;
  const onClose = (): void => {
    outgoing.removeListener("close", onClose);
    socket.removeListener("close", onClose);
    free();
  };
  if (outgoing.destroyed || socket.destroyed) return free();
  outgoing.once("close", onClose);
  socket.once("close", onClose);
}

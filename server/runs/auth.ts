// The user's own auth: who is calling, and what he may do. It is the official class Auth, of whatever copy, so only what
// it keeps is looked at. Whatever is not understood lets nobody in.
import { AccessDenied, AuthInvalid, AuthRefused } from "../errors.ts";
import type { Fields } from "../fields.ts";
import { filterOf } from "../storage/auth-filter.ts";
import type { AuthFilter } from "../storage/auth-filter.ts";
import type { RunAuth } from "../storage/runs.ts";
import { importSetting } from "./graph/modules.ts";

/** What can be asked for, under the official names. */
export interface Events {
  readonly assistants: "create" | "read" | "update" | "delete" | "search";
  readonly threads: "create" | "read" | "update" | "delete" | "search" | "create_run";
  readonly crons: "create" | "read" | "update" | "delete" | "search";
  readonly store: "put" | "get" | "search" | "list_namespaces" | "delete";
}

export type AuthEvent = { [Resource in keyof Events]: `${Resource}:${Events[Resource]}` }[keyof Events];

/** Somebody who was let in. */
export interface Caller {
  /** As authenticate() gave it. */
  readonly user: RunAuth["user"];
  readonly permissions: readonly string[];
}

export interface Permit<Value> {
  /** Which rows are meant; undefined: any. */
  readonly filter: AuthFilter | undefined;
  /** What was asked, as the handler left it. */
  readonly value: Value;
}

interface Handlers {
  readonly authenticate: (request: Request) => unknown;
  readonly callbacks?: Readonly<Record<string, (asked: object) => unknown>>;
}

export class Authority {
  readonly #handlers: Handlers;

  constructor(handlers: Handlers) {
    this.#handlers = handlers;
  }

  /** Whether callers are told apart at all; if not, who was let in may do everything. */
  get hasHandlers(): boolean {
    return Object.keys(this.#handlers.callbacks ?? {}).length > 0;
  }

  /** @throws AuthRefused, AuthInvalid, or what the user's code throws */
  async authenticate(request: Request): Promise<Caller> {
    const answer = await refusing(() => this.#handlers.authenticate(request));
    const given: Fields = typeof answer === "string" ? { identity: answer } : { ...Object(answer) };
    const { identity, permissions } = given;
    if (typeof identity !== "string" || identity === "")
      throw new AuthInvalid("authenticate() gave neither a text nor an object with an identity");
    if (permissions !== undefined && permissions !== null && !Array.isArray(permissions))
      throw new AuthInvalid("authenticate() gave permissions that are no list");
    const list = (permissions ?? []).map(String);
    const user = {
      ...given,
      identity,
      permissions: list,
      is_authenticated: given["is_authenticated"] ?? true,
      display_name: given["display_name"] ?? identity,
    };
    if (user.is_authenticated !== true) throw new AuthRefused(401, "Unauthorized", new Headers());
    return { user, permissions: list };
  }

  /**
   * Asks the most specific handler; it may change the value.
   * @throws AccessDenied, AuthRefused, AuthInvalid, or what the user's code throws
   */
  async authorize<Value extends object>(
    { user, permissions }: Caller,
    event: AuthEvent,
    value: Value,
  ): Promise<Permit<Value>> {
    const [resource = "", action = ""] = event.split(":");
    const { callbacks = {} } = this.#handlers;
    if (!this.hasHandlers) return { filter: undefined, value };
    const name = [event, resource, `*:${action}`, "*"].find((one) => Object.hasOwn(callbacks, one));
    const handler = name === undefined ? undefined : callbacks[name];
    if (!handler) throw new AccessDenied();
    const asked = { event, resource, action, value, user, permissions };
    return { filter: this.#filterOf(await refusing(() => handler(asked)), event), value };
  }

  #filterOf(result: unknown, event: AuthEvent): AuthFilter | undefined {
    if (result === undefined || result === null || result === true) return undefined;
    if (result === false) throw new AccessDenied();
    if (typeof result !== "object" || Array.isArray(result))
      throw new AuthInvalid(`it returned ${Array.isArray(result) ? "a list" : `a ${typeof result}`}`, event);
    return filterOf(result);
  }
}

/** What a run keeps of who asked for it: what survives as JSON. */
export const authOf = ({ user, permissions }: Caller): RunAuth =>
  JSON.parse(JSON.stringify({ user, permissions })) as RunAuth;

/** @throws ConfigInvalid in one sentence */
export const loadAuthority = (base: string, spec: string): Promise<Authority> =>
  importSetting(base, { name: "auth.path", spec }, (value) => {
    const handlers = Object(value)["~handlerCache"];
    if (typeof handlers !== "object" || handlers === null)
      throw new Error("it is no Auth of @langchain/langgraph-sdk/auth");
    if (typeof handlers.authenticate === "function") return new Authority(handlers as Handlers);
    throw new Error("it has no authenticate(), so nobody could be told apart; add one");
  });

/** An HTTPException, of whatever copy, says by itself what is answered. */
async function refusing(ask: () => unknown): Promise<unknown> {
  try {
    return await ask();
  } catch (error) {
    const { status, message, headers } = Object(error);
    if (!(error instanceof Error) || !Number.isInteger(status) || status < 400 || status > 599) throw error;
    throw new AuthRefused(status, message, new Headers(headers ?? {}));
  }
}

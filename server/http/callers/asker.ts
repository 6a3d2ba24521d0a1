// Who asks, as auth has found out.
import type { AuthEvent, Authority, Caller } from "../../runs/auth.ts";

export interface Access {
  readonly authority: Authority;
  readonly caller: Caller;
  readonly asked: Set<AuthEvent>;
}

const KEY = "holdfast.access";

/** Where a caller is known by: the context of a request, or a socket. */
export interface Asker {
  get(key: string): unknown;
}

export const accessOf = (context: Asker): Access | undefined => context.get(KEY) as Access | undefined;

/** Who is calling; undefined without auth. */
export const callerOf = (context: Asker): Caller | undefined => accessOf(context)?.caller;

/** Keeps who asks with his request. */
export const keepAccess = (context: { set(key: never, value: never): void }, access: Access): void =>
  context.set(KEY as never, access as never);

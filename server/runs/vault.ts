// What is found on a thread whose graph keeps it apart: the guard that makes tokens of it, and the store that has to hold
// it before anything is written in which those tokens stand.
import { persistently } from "../persist.ts";
import type { Guard } from "../privacy/guard.ts";
import type { DataKey } from "../privacy/seal.ts";
import { Vault } from "../privacy/vault.ts";
import type { Queryable } from "../storage/database.ts";
import { insertVaultEntries } from "../storage/keys/vault.ts";
import type { Engine } from "./engine.ts";

/** A thread, and who works with it. */
interface Where {
  readonly threadId: string;
  /** The thread's key; undefined when nothing is sealed. */
  readonly key: DataKey | undefined;
  readonly identity: string | undefined;
}

export interface ThreadGuard {
  readonly guard: Guard;
  /** What was found and has still to be kept. */
  readonly vault: Vault | undefined;
  /** Keeps what was found until now; undefined when there is nothing new. Wait for it before writing tokens. */
  readonly keep: () => Promise<void> | undefined;
}

/** @param on where it is kept: the pool, or the transaction that writes the tokens */
export function guardThreadText(
  { privacy, database }: Pick<Engine, "privacy" | "database">,
  graphId: unknown,
  { threadId, key, identity }: Where,
  on: Queryable = database,
): ThreadGuard {
  const { guard, vault } = privacy.onThread(graphId, () => key && new Vault(key, identity));
  let keeping: Promise<void> | undefined;
  const store = async (): Promise<void> => {
    if (!vault || !key) return;
    const entries = vault.takeNew();
    const insert = (): Promise<void> => insertVaultEntries(on, { threadId, key }, entries);
    await (on === database ? persistently(insert) : insert());
  };
  // Whoever comes while something is being kept waits for it too: his text may hold its tokens. What could not be kept
  // fails all who come after, so that no token is written without its value.
  const keep = (): Promise<void> | undefined => {
    if (!vault?.hasNew) return keeping;
    const done = (keeping ?? Promise.resolve()).then(store);
    keeping = done;
    const forget = (): void => {
      if (keeping === done) keeping = undefined;
    };
    done.then(forget, () => undefined); // who asked is told
    return done;
  };
  return { guard, vault, keep };
}

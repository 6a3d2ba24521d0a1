// The small interface through which everything else sees Postgres.
import type { Seals } from "./keys/seals.ts";
import type { Queries } from "./queries.ts";

/**
 * One statement. Its text begins with a tag such as `/* findThread *\/`, which becomes its prepared name. A tag with
 * words after the name is no name: PostgreSQL plans such a statement anew for the values of each call.
 */
export interface Queryable extends Queries {
  /** The keys under which rows of this database are sealed. */
  readonly seals: Seals;
}

/** A connection of its own: for LISTEN and session advisory locks. */
export interface Session extends Queryable {
  /** Resolves when the connection is gone, however it went. */
  readonly closed: Promise<void>;
  /** Calls `heard` with the payload of every notification this connection listens for. */
  onNotification(heard: (payload: string) => void): void;
  close(): Promise<void>;
}

export interface Database extends Queryable {
  /** begin … commit; any error rolls back and is thrown on. */
  transaction<T>(work: (transaction: Queryable) => Promise<T>): Promise<T>;
  /**
   * Opens a session outside the pool, on the direct address. One that pipelines sends each statement at once, without
   * waiting for the answers to those before.
   */
  session(options?: { pipelines: boolean }): Promise<Session>;
  /** Waits for running statements, then closes every connection. */
  close(): Promise<void>;
}

// What statements are sent through, whether or not keys are known there.

export interface Queries {
  /** Runs one statement and returns its rows. Throws DatabaseUnavailable when Postgres cannot answer. */
  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

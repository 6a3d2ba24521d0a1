// Through what statements are sent, whatever is known of keys.
/** What statements are sent through. */
export interface Queries {
  /** Runs one statement and returns its rows. Throws DatabaseUnavailable when Postgres cannot answer. */
  query<Row>(text: string, values?: readonly unknown[]): Promise<Row[]>;
}

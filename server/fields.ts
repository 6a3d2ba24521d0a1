// An object of which nothing is known but that it has fields.

export type Fields = Record<string, unknown>;

/** An object's own fields; none of anything else. */
export const asFields = (value: unknown): Fields =>
  typeof value === "object" && value !== null ? { ...value } : {};

// A page of a list as clients expect it: how many there are on all pages, where the next one begins, and of each row the
// keys that were asked for.
import type { Context } from "hono";
import type { Fields } from "../fields.ts";

/** @param next where the next page begins; undefined on the last one */
export function announcePage(
  context: Context,
  { total, next }: { total: number; next: number | undefined },
): void {
  context.header("X-Pagination-Total", String(total));
  if (next !== undefined) context.header("X-Pagination-Next", String(next));
}

/** Where the page after these rows begins, if there is one. */
export function nextOf(offset: number, rows: readonly unknown[], total: number): number | undefined {
  const next = offset + rows.length;
  return next < total ? next : undefined;
}

/** A query in which `select` may come several times. */
export const queryOf = (context: Context): Fields => ({
  ...context.req.query(),
  select: context.req.queries("select"),
});

/** Only these keys of a row; all when none are named. */
export const selectKeys = (row: object, select: readonly string[] | null | undefined): Fields =>
  select ? Object.fromEntries(Object.entries(row).filter(([key]) => select.includes(key))) : { ...row };

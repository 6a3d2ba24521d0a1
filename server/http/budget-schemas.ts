// What the routes of budgets take.
import { z } from "zod";
import { now } from "../clock.ts";
import { isStorable } from "../privacy/storable.ts";
import { BUDGET_UNITS, isAmount } from "../runs/budgets.ts";
import { PERIODS, SCOPES, USAGE_GROUPS } from "../storage/budgets.ts";
import { whole } from "./schemas.ts";

// Micro-dollars of it still are exact in JavaScript.
const most = z.number().min(0).max(1_000_000_000);
const time = z.iso.datetime({ offset: true }).transform((text) => new Date(text));
const place = z.string().min(1).max(500).refine(isStorable, "must hold no NUL character");
const offset = whole(0, 1_000_000_000, 0);

const DAY_MS = 86_400_000;

export const budgetCreate = z
  .strictObject({
    scope: z.enum(SCOPES),
    /** Of a user, the identity that auth knows him by. Left out or *: each one has the limit for himself. */
    scope_id: place.optional(),
    unit: z.enum(BUDGET_UNITS),
    period: z.enum(PERIODS),
    max: most,
  })
  .refine(({ unit, max }) => isAmount(unit, max), {
    path: ["max"],
    message: "must be a whole number of tokens, or dollars with at most six decimals",
  });

export const budgetChange = z.strictObject({ max: most });

export const budgetQuery = z.object({
  scope: z.enum(SCOPES).optional(),
  scope_id: place.optional(),
  limit: whole(1, 1000, 100),
  offset,
});

/** Of the last 30 days, if nothing else is said. */
export const usageQuery = z.object({
  by: z.enum(USAGE_GROUPS).default("day"),
  from: time.default(() => new Date(now() - 30 * DAY_MS)),
  to: time.default(() => new Date(now() + DAY_MS)),
  thread_id: place.optional(),
  limit: whole(1, 10_000, 1000),
});

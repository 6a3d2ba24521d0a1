// What is said of a budget that is too small for a call: which one, how much is left of it, and when it begins anew.
import type { Shortage } from "../../storage/model-calls.ts";

/** What a program reads of it; amounts in tokens or in US dollars, as `unit` says. */
export interface ShortageDetails {
  readonly budget_id: string;
  readonly scope: string;
  readonly unit: "tokens" | "usd";
  readonly period: string;
  readonly max: number;
  readonly free: number;
  /** Null: the model has no price. */
  readonly asked: number | null;
  /** Null: never. */
  readonly resets_at: string | null;
}

const PER_USD = 1_000_000;

export function shortageOf(
  short: Shortage & { readonly outcome: "short" | "unpriced" },
  model: string,
): { message: string; details: ShortageDetails } {
  const isMoney = short.unit === "micro_usd";
  const amount = (micro: number): number => (isMoney ? micro / PER_USD : micro);
  const said = (micro: number): string => (isMoney ? `$${amount(micro)}` : `${micro} tokens`);
  const details: ShortageDetails = {
    budget_id: short.budget_id,
    scope: short.scope,
    unit: isMoney ? "usd" : "tokens",
    period: short.period,
    max: amount(short.max),
    free: amount(short.free),
    asked: short.asked === null ? null : amount(short.asked),
    resets_at: short.ends_at?.toISOString() ?? null,
  };
  const which = `The budget of ${said(short.max)} ${periodOf(short.period)} for this ${short.scope}`;
  if (short.outcome === "unpriced")
    return {
      details,
      message: `${which} counts money, and ${model} has no price. Nothing was sent. Give it one in the file of HOLDFAST_MODELS.`,
    };
  const again = details.resets_at ? ` It begins anew at ${details.resets_at}.` : "";
  return {
    details,
    message: `${which} has ${said(short.free)} left, and this call may cost ${said(short.asked ?? 0)}. Nothing was sent.${again}`,
  };
}

const periodOf = (period: string): string => (period === "total" ? "in all" : `a ${period}`);

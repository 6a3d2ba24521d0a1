// What the suite found, as one table in the end.
import { quantile } from "../server/commands/chaos/quantile.ts";

export interface Violation {
  readonly law: string;
  readonly what: string;
}

export interface Outcome {
  readonly fault: string;
  readonly trials: number;
  readonly violations: readonly Violation[];
  /** Milliseconds from a crash until each struck run was claimed again. */
  readonly takeovers: readonly number[];
  /** Milliseconds from giving a run back in order until it was claimed again. */
  readonly handovers: readonly number[];
  readonly seconds: number;
}

export function tableOf(outcomes: readonly Outcome[]): string {
  const rows = outcomes.map(({ fault, trials, violations, takeovers, handovers, seconds }) => {
    const isGraceful = handovers.length > 0;
    const times = isGraceful ? handovers : takeovers;
    const [half, most] = [time(times, 0.5), time(times, 0.99)];
    const mark = isGraceful ? " (hand-over)" : "";
    return `| ${fault} | ${trials} | ${violations.length} | ${half}${mark} | ${most}${mark} | ${Math.round(seconds)} |`;
  });
  return [
    "| fault | trials | violations | takeover p50 | p99 | seconds |",
    "|---|---:|---:|---:|---:|---:|",
    ...rows,
  ].join("\n");
}

function time(values: readonly number[], share: number): string {
  const ms = quantile(values, share);
  return ms === undefined ? "–" : `${(ms / 1000).toFixed(2)} s`;
}

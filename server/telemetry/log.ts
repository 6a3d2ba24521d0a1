// One JSON line per fact, to standard error. A line holds ids, codes and figures, never what a user wrote.
import { pino } from "pino";
import { plainGuard } from "../privacy/guard.ts";
import type { Guard } from "../privacy/guard.ts";

export interface Log {
  debug(event: string, facts?: object): void;
  info(event: string, facts?: object): void;
  warn(event: string, facts?: object): void;
  error(event: string, facts?: object): void;
}

/**
 * Event names are noun.past-verb, such as run.finished.
 * @param guard looks at each line
 */
export function openLog(level: "debug" | "info" | "warn" | "error", guard: Guard = plainGuard()): Log {
  const logger = pino(
    {
      level,
      base: null,
      messageKey: "event",
      timestamp: pino.stdTimeFunctions.isoTime,
      // What went wrong is told in words of others, who may quote what a user wrote.
      formatters: { level: named, log: (facts) => guard.value(facts) },
    },
    pino.destination({ dest: 2, sync: true }),
  );
  return {
    debug: (event, facts = {}) => logger.debug(facts, event),
    info: (event, facts = {}) => logger.info(facts, event),
    warn: (event, facts = {}) => logger.warn(facts, event),
    error: (event, facts = {}) => logger.error(facts, event),
  };
}

const named = (label: string): object => ({ level: label });

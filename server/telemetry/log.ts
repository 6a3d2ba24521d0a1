// One JSON line per fact, to standard error. A line holds ids, codes and figures, never what a user wrote.
import { pino } from "pino";
import { redactText } from "../privacy/redact.ts";
import { redactValue } from "../privacy/values.ts";

export interface Log {
  debug(event: string, facts?: object): void;
  info(event: string, facts?: object): void;
  warn(event: string, facts?: object): void;
  error(event: string, facts?: object): void;
}

/** Event names are noun.past-verb, such as run.finished. */
export function openLog(level: "debug" | "info" | "warn" | "error"): Log {
  const logger = pino(
    {
      level,
      base: null,
      messageKey: "event",
      timestamp: pino.stdTimeFunctions.isoTime,
      formatters: { level: named },
    },
    pino.destination({ dest: 2, sync: true }),
  );
  return {
    debug: (event, facts = {}) => logger.debug(kept(facts), event),
    info: (event, facts = {}) => logger.info(kept(facts), event),
    warn: (event, facts = {}) => logger.warn(kept(facts), event),
    error: (event, facts = {}) => logger.error(kept(facts), event),
  };
}

// What went wrong is told in words of others, who may quote what a user wrote.
const kept = (facts: object): object => redactValue(facts, redactText);
const named = (label: string): object => ({ level: label });

// When a schedule comes: cron expressions of five or six fields, in a time zone, on the real calendar. A clock that is
// put forward skips no daily time (it comes right after the gap), one that is put back repeats none.
import { Cron } from "croner";
import { CronInvalid, messageOf } from "../errors.ts";

export interface Schedule {
  readonly schedule: string;
  /** IANA name; UTC without one. */
  readonly timezone: string | null;
}

const NICKNAME = /^@(yearly|annually|monthly|weekly|daily|hourly)$/i;

/**
 * The first time after `after` that the schedule comes; undefined when it never does again.
 * @throws CronInvalid when the expression or the zone cannot be understood
 */
export function nextTime(schedule: Schedule, after: Date): Date | undefined {
  return parse(schedule).nextRun(after) ?? undefined;
}

/** The last time up to `now` that the schedule came, and no earlier than `due`, which is one of its times. */
export function latestTime(schedule: Schedule, due: Date, now: Date): Date {
  // The library looks strictly before a whole second.
  const before = new Date((Math.floor(now.getTime() / 1000) + 1) * 1000);
  const [latest] = parse(schedule).previousRuns(1, before);
  return latest && latest > due ? latest : due;
}

/** @throws CronInvalid unless the schedule can be understood and comes before `end` */
export function checkSchedule(schedule: Schedule, now: Date, end: Date | null): void {
  const next = nextTime(schedule, now);
  if (!next) throw new CronInvalid(`The schedule "${schedule.schedule}" never comes; check day and month.`);
  if (end && end <= now) throw new CronInvalid("end_time has passed; leave it out or choose a later one.");
  if (end && next > end)
    throw new CronInvalid(`end_time is before the schedule comes for the first time, ${next.toISOString()}.`);
}

function parse({ schedule, timezone }: Schedule): Cron {
  const fields = schedule.trim().split(/\s+/).length;
  if (!NICKNAME.test(schedule.trim()) && fields !== 5 && fields !== 6) {
    throw new CronInvalid(
      `The schedule "${schedule}" must have 5 fields (minute hour day month weekday) or 6 with seconds first.`,
    );
  }
  if (timezone !== null && !isZone(timezone))
    throw new CronInvalid(`The timezone "${timezone}" is unknown; use an IANA name such as Europe/Berlin.`);
  try {
    // Lists and ranges of hours are fixed times too, as in cron(8): only what steps through the hours skips a gap.
    return new Cron(schedule.trim(), {
      timezone: timezone ?? "UTC",
      mode: "5-or-6-parts",
      fixedTimeRule: "no-wildcard",
      paused: true,
    });
  } catch (error) {
    const reason = messageOf(error).replace(/^CronPattern: /, "");
    throw new CronInvalid(`The schedule "${schedule}" cannot be understood: ${reason}.`);
  }
}

function isZone(name: string): boolean {
  try {
    return Intl.DateTimeFormat("en", { timeZone: name }).resolvedOptions().timeZone !== "";
  } catch {
    return false; // a RangeError is how Intl says no
  }
}

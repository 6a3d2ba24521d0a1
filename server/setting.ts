// The form of a setting, the forms of its values, and which one a wrong name is near to.
import { z } from "zod";

export interface Setting<Schema extends z.ZodType = z.ZodType> {
  readonly env: string;
  readonly schema: Schema;
  readonly help: string;
  /** A secret is never shown; it may also come from a file named by `<env>_FILE`. */
  readonly secret?: true;
}

export const integer = (min: number, max: number): z.ZodCoercedNumber =>
  z.coerce
    .number(`must be a whole number from ${min} to ${max}`)
    .int(`must be a whole number from ${min} to ${max}`)
    .min(min, `must be at least ${min}`)
    .max(max, `must be at most ${max}`);
export const flag = z.enum(["on", "off"], "must be on or off").transform((value) => value === "on");
const address = (scheme: RegExp, form: string): z.ZodString =>
  z.string().regex(scheme, `must look like ${form}`);
const whole = (schema: z.ZodString): z.ZodString =>
  schema.refine(
    // Of a socket, the host stands behind: postgresql://user@/database?host=/var/run/postgresql
    (text) => URL.canParse(text.replace("@/", "@host/")),
    "is no valid address: write special characters of the password in percent form, such as %23 for #",
  );
export const postgres = whole(
  address(/^postgres(ql)?:\/\//, "postgresql://user:password@host:5432/database"),
);
export const redis = whole(address(/^rediss?:\/\//, "redis://user:password@host:6379"));
export const apiBase = address(
  /^https?:\/\/(?![^/?#]*@)/,
  "https://api.openai.com/v1, without a user or password",
);
/** For a header: with a line break in it, the error of fetch would repeat it. */
export const word = z
  .string()
  .trim()
  .refine((text) => /^[\x21-\x7e]+$/.test(text), "must be one word of printable characters");
export const commaSeparated = z
  .string()
  .default("")
  .transform((text) =>
    text
      .split(",")
      .map((one) => one.trim())
      .filter(Boolean),
  );
export const setting = <Schema extends z.ZodType>(one: Setting<Schema>): Setting<Schema> => one;

/** Which of the known names somebody meant. */
export const nearest = (name: string, known: readonly string[]): string | undefined =>
  known.toSorted((a, b) => distance(a, name) - distance(b, name))[0];

/** By Levenshtein. */
function distance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (const [i, left] of a.split("").entries()) {
    const next = [i + 1];
    for (const [j, right] of b.split("").entries()) {
      next.push(
        Math.min((row[j] ?? 0) + (left === right ? 0 : 1), (row[j + 1] ?? 0) + 1, (next[j] ?? 0) + 1),
      );
    }
    row = next;
  }
  return row[b.length] ?? 0;
}

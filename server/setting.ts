// The form of a setting, and the forms of its values.
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
export const address = (scheme: RegExp, form: string): z.ZodString =>
  z.string().regex(scheme, `must look like ${form}`);
const whole = (schema: z.ZodString): z.ZodString =>
  schema.refine(
    (text) => URL.canParse(text),
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

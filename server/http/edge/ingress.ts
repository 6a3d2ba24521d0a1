// The way in for every body: bounded in size and depth, valid JSON, and nothing that could not be stored.
// Content that merely looks dangerous is no reason to refuse: state is data, and its serde keeps it so.
import type { Context } from "hono";
import { InputInvalid, InputPoisoned, messageOf } from "../../errors.ts";
import { isStorable } from "../../privacy/storable.ts";

// Far above any real message, far below what recursion anywhere could not bear.
const MAX_DEPTH = 100;

/**
 * The request's body; an empty one is {}. Also read when a client says text/plain.
 * @throws InputInvalid when it is not JSON, InputPoisoned when it could not be kept safely
 */
export async function readBody(context: Context): Promise<unknown> {
  return parseBody(await context.req.text());
}

/** The same for a text that came another way. */
export function parseBody(text: string): unknown {
  if (text.trim() === "") return {};
  const body = parse(text);
  refusePoison(body);
  return body;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    // V8 quotes the text around the error; only the position may be shown.
    const at = /position \d+/.exec(messageOf(error))?.[0];
    throw new InputInvalid(`The request body is not valid JSON${at ? `: error at ${at}` : ""}.`);
  }
}

/** Walks without recursion, so that depth cannot hurt the walk itself. */
function refusePoison(body: unknown): void {
  let level: unknown[] = [body];
  for (let depth = 0; level.length > 0; depth += 1) {
    if (depth > MAX_DEPTH)
      throw new InputPoisoned(`The request body is nested deeper than ${MAX_DEPTH} levels.`);
    const next: unknown[] = [];
    for (const value of level) {
      if (typeof value !== "object" || value === null) continue;
      if (Object.hasOwn(value, "__proto__"))
        throw new InputPoisoned("The request body has a key named __proto__.");
      for (const item of Object.values(value)) if (typeof item === "object" && item !== null) next.push(item);
    }
    level = next;
  }
}

/** Refuses what PostgreSQL's jsonb cannot hold. @param field the name to show */
export function refuseUnstorable(field: string, value: unknown): void {
  JSON.stringify(value, (key: string, item: unknown) => {
    if (isStorable(key) && (typeof item !== "string" || isStorable(item))) return item;
    throw new InputPoisoned(
      `${field} holds a NUL character or half a surrogate pair, which cannot be stored there.`,
    );
  });
}

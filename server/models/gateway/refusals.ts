// What a client of a provider gets to see when there is no answer. Whatever could pass was tried again here already: a
// client that tried it once more, as LangChain does six times within a minute, would only multiply calls and waits.
import { BudgetExceeded } from "../../errors.ts";
import type { AppError } from "../../errors.ts";
import { refusal } from "../answer.ts";

/** LangChain takes these for final, and the OpenAI client does what the header says. */
const FINAL = new Set([400, 401, 402, 403, 404, 405, 406, 407, 409, 413]);
const NO_RETRY = { "x-should-retry": "false" };
const MOST_BYTES = 65_536;

/** A failure of ours, as an answer of the provider: its code leads back to it, see refusalBehind(). */
export function refusalOf(error: AppError): Response {
  const { code, message } = error;
  const status = error instanceof BudgetExceeded ? 402 : 409;
  const body = { error: { message, type: code, code, param: null } };
  return Response.json(body, { status, headers: NO_RETRY });
}

/**
 * The answer as it may be handed on: a refusal that no client would try again, or whatever else it is.
 * @throws ModelFailed for a refusal that clients would try again
 */
export async function asClientsTake(response: Response): Promise<Response> {
  if (response.ok || FINAL.has(response.status)) return response;
  throw refusal(response.status, codeIn((await response.text()).slice(0, MOST_BYTES)));
}

function codeIn(text: string): string {
  try {
    const { error } = JSON.parse(text) as { error?: { code?: unknown } };
    return typeof error?.code === "string" && /^\w{1,40}$/.test(error.code) ? error.code : "";
  } catch {
    return ""; // not every provider speaks JSON when it fails
  }
}

// Which requests may be answered from the cache, and what makes two of them equal: all that a provider is told, except
// for the form in which the answer is wanted.
import type { ChatBody } from "../gateway/chat-call.ts";
import type { CallRequest } from "../gateway/context.ts";

/** `asked`: where the request says so. `deterministic`: also where it has temperature 0 and no tools. */
export type CacheRule = "off" | "asked" | "deterministic";

/** Of one request: `on`, `off`, or nothing. Providers are not told. */
const HEADER = "x-holdfast-cache";

// All others may name an account, the provider behind a gateway, or a feature that changes the answer.
const SAYS_NOTHING =
  /^(?:accept|accept-encoding|accept-language|baggage|connection|content-length|content-type|idempotency-key|traceparent|tracestate|user-agent|x-(?:client-request|correlation|request)-id|x-stainless-.*)$/;

/** What a request says of the cache, and the request as a provider may see it. */
export function takeWish(request: CallRequest): { request: CallRequest; wish: string | undefined } {
  const headers = new Headers(request.init.headers);
  const wish = headers.get(HEADER)?.toLowerCase();
  if (wish === undefined) return { request, wish };
  headers.delete(HEADER);
  return { request: { ...request, init: { ...request.init, headers } }, wish };
}

export function mayBeCached(body: ChatBody, rule: CacheRule, wish: string | undefined): boolean {
  if (rule === "off" || wish === "off" || (body.n ?? 1) !== 1) return false;
  if (wish === "on") return true;
  const hasTools = (body.tools?.length ?? 0) > 0 || (body.functions?.length ?? 0) > 0;
  return rule === "deterministic" && body["temperature"] === 0 && !hasTools;
}

/** Equal for equal requests. @param model the one that is asked first, after routing */
export function identityOf({ url, init }: CallRequest, body: ChatBody, model: string): readonly string[] {
  const { stream: _stream, stream_options: _options, ...rest } = body;
  const told = [...new Headers(init.headers)].filter(([name]) => !SAYS_NOTHING.test(name));
  return [url, JSON.stringify(told), canonical({ ...rest, model })];
}

/** JSON whose fields are in order. */
const canonical = (value: unknown): string =>
  JSON.stringify(value, (_, one: unknown) =>
    typeof one === "object" && one !== null && !Array.isArray(one)
      ? Object.fromEntries(Object.entries(one).toSorted(([a], [b]) => (a < b ? -1 : 1)))
      : one,
  );

// Sends the model calls of graphs through the gateway, whatever library makes them: a limit that held only for code that
// remembers it would be none. Calls outside of a run, and to anything but a chat endpoint, are left alone.
import { callContext } from "./context.ts";
import type { CallContext } from "./context.ts";

const CHAT = /\/(chat\/completions|responses)$/;

let users = 0;
let original: typeof fetch | undefined;

/** As it was before anybody intercepted. */
export const plainFetch: typeof fetch = (input, init) => (original ?? globalThis.fetch)(input, init);

/** Begins, and returns what ends it. Clients of providers take fetch when they are made, so begin before graphs are loaded. */
export function interceptCalls(): () => void {
  users += 1;
  if (users === 1) {
    original = globalThis.fetch;
    globalThis.fetch = intercepted;
  }
  let isOver = false;
  return () => {
    if (isOver) return;
    isOver = true;
    users -= 1;
    if (users > 0 || globalThis.fetch !== intercepted || !original) return;
    globalThis.fetch = original;
    original = undefined;
  };
}

const intercepted: typeof fetch = async (input, init) => {
  const context = callContext();
  const url = input instanceof Request ? input.url : String(input);
  if (!context || !isChat(url)) return plainFetch(input, init);
  return passOn(context, { url, input, init });
};

const isChat = (url: string): boolean => CHAT.test(URL.parse(url)?.pathname ?? "");

async function passOn(
  context: CallContext,
  { url, input, init }: { url: string; input: string | URL | Request; init: RequestInit | undefined },
): Promise<Response> {
  const request = new Request(input, init);
  if (request.method !== "POST") return plainFetch(input, init);
  const body = typeof init?.body === "string" ? init.body : await request.text();
  const { method, headers, signal } = request;
  return context.call({ url, body, init: { ...init, method, headers, signal } }, context);
}

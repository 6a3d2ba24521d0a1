// Sends the model calls of graphs through the gateway, whatever library makes them: a limit that held only for code that
// remembers it would be none. Calls outside of a run, and to anything but a chat endpoint, are left alone.
import { callContext } from "./context.ts";

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
  const method = init?.method ?? (input instanceof Request ? input.method : "GET");
  if (!context || method !== "POST" || !isChat(url)) return plainFetch(input, init);
  if (typeof init?.body === "string") return context.call({ url, body: init.body, init }, context);
  const request = new Request(input, init);
  const { headers, signal } = request;
  return context.call({ url, body: await request.text(), init: { method, headers, signal } }, context);
};

const isChat = (url: string): boolean => CHAT.test(URL.parse(url)?.pathname ?? "");

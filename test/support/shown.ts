// What a chat client makes of a stream: tokens are joined, removed messages go, and values are the whole truth.
import type { Frame } from "./server.ts";

/** What stands on the screen after these frames: texts by message id, in order. */
export function shown(frames: readonly Frame[]): [string, string][] {
  const texts = new Map<string, string>();
  for (const { event, data } of frames) {
    if (event === "values") {
      texts.clear();
      for (const { id, content } of (data as { messages: { id: string; content: string }[] }).messages)
        texts.set(id, content);
    }
    if (event !== "messages") continue;
    const [{ id, type, content }] = data as [{ id: string; type: string; content: string }];
    if (type === "remove") texts.delete(id);
    else texts.set(id, (texts.get(id) ?? "") + content);
  }
  return [...texts];
}

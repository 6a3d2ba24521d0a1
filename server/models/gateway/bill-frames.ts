// A stream without the frame that tells its usage, for clients that did not ask for it and would stumble over a frame
// without a choice. Everything else is passed on byte for byte.
import { sourceOf, withBody } from "../answer-body.ts";

const BREAK = /\r?\n\r?\n/;

export function withoutBill(response: Response): Response {
  const source = sourceOf(response);
  if (!source) return response;
  const [decoder, encoder] = [new TextDecoder(), new TextEncoder()];
  let held = "";
  /** So much of what is held, unless it is the bill. */
  const take = (length: number): string => {
    const text = held.slice(0, length);
    held = held.slice(length);
    return isBill(text) ? "" : text;
  };
  return withBody(response, {
    read: async () => {
      for (;;) {
        const { value } = await source.read();
        held += value ? decoder.decode(value, { stream: true }) : decoder.decode();
        let text = "";
        for (let end = BREAK.exec(held); end; end = BREAK.exec(held)) text += take(end.index + end[0].length);
        if (!value) text += take(held.length);
        if (text !== "") return { done: false, value: encoder.encode(text) };
        if (!value) return { done: true };
      }
    },
    cancel: (reason) => source.cancel(reason),
  });
}

const isBill = (text: string): boolean =>
  /"choices"\s*:\s*\[\s*\]/.test(text) && /"usage"\s*:\s*\{/.test(text);

// A stream without the frame that tells its usage, for clients that did not ask for it and would stumble over a frame
// without a choice. Everything else is passed on byte for byte.
const BREAK = /\r?\n\r?\n/;

export function withoutBill(response: Response): Response {
  const { body, status, statusText, headers } = response;
  if (!body) return response;
  const [decoder, encoder] = [new TextDecoder(), new TextEncoder()];
  let held = "";
  const pass = (text: string, controller: TransformStreamDefaultController<Uint8Array>): void => {
    if (text !== "" && !isBill(text)) controller.enqueue(encoder.encode(text));
  };
  const frames = new TransformStream<Uint8Array, Uint8Array>({
    transform: (chunk, controller) => {
      held += decoder.decode(chunk, { stream: true });
      for (let end = BREAK.exec(held); end; end = BREAK.exec(held)) {
        const length = end.index + end[0].length;
        pass(held.slice(0, length), controller);
        held = held.slice(length);
      }
    },
    flush: (controller) => pass(held + decoder.decode(), controller),
  });
  return new Response(body.pipeThrough(frames), { status, statusText, headers });
}

const isBill = (text: string): boolean =>
  /"choices"\s*:\s*\[\s*\]/.test(text) && /"usage"\s*:\s*\{/.test(text);

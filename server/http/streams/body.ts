// A stream as the body of a response and back, for middleware of the user that wants to see or change it. A body that
// nobody touches is never read: the stream then goes to the connection without it, as sse.ts does.
import { every } from "../../clock.ts";

export interface Streamed<Item> {
  readonly items: AsyncGenerator<Item>;
  readonly render: (item: Item) => string | Uint8Array;
  /** Sent in every interval, so that nothing on the way takes the connection for dead. */
  readonly keepAlive: string;
  readonly heartbeatMs: number;
  /** Aborted when the client is gone; ends the items. */
  readonly gone: AbortController;
  /** Called once if the client leaves before the items end; not when this server cuts the connection. */
  readonly onLeave: () => void;
  /** Told why the connection is broken off. */
  readonly onCut: (reason: unknown) => void;
}

/** The stream, keep-alive lines included, from when it is first read. */
export function asBody<Item>(stream: Streamed<Item>): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let stopBeating: (() => void) | undefined;
  return new ReadableStream<Uint8Array>(
    {
      async pull(controller) {
        stopBeating ??= every(stream.heartbeatMs, () => {
          const isAwaited = controller.desiredSize !== null && controller.desiredSize >= 0;
          if (isAwaited) controller.enqueue(encoder.encode(stream.keepAlive));
        });
        try {
          const next = await stream.items.next();
          if (next.done) {
            stopBeating();
            controller.close();
            return;
          }
          const piece = stream.render(next.value);
          controller.enqueue(typeof piece === "string" ? encoder.encode(piece) : piece);
        } catch (error) {
          stopBeating();
          throw error; // breaks the body off
        }
      },
      cancel() {
        stopBeating?.();
        stream.gone.abort();
      },
    },
    { highWaterMark: 0 },
  );
}

/** What middleware made of a body; it beats by itself, as far as that middleware lets it. */
export const asStream = (
  body: ReadableStream<Uint8Array>,
): Pick<Streamed<Uint8Array>, "items" | "render" | "keepAlive"> => ({
  items: piecesOf(body),
  render: (piece) => piece,
  keepAlive: "",
});

async function* piecesOf(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  for await (const piece of body) yield piece;
}

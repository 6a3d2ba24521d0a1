// The bytes of a provider's answer on their way to the client in a graph. Whoever listens in on the way adds a layer, and
// all layers are read as one: a web stream for each would cost a token more than everything that is done with it.

import type { ReadableStreamAsyncIterator } from "node:stream/web";

export type Bytes = Uint8Array<ArrayBuffer>;

/** What comes of a body, piece by piece; one read at a time. After an end or an error it stays so. */
export interface Source {
  read(): Promise<{ readonly done: boolean; readonly value?: Bytes | undefined }>;
  /** Nothing more is wanted. A read under way ends. */
  cancel(reason?: unknown): Promise<void>;
}

/** A stream that is read from its source directly, by who goes through it with `for await`, and by the next layer. */
class AnswerBody extends ReadableStream<Bytes> {
  readonly #source: Source;

  constructor(source: Source) {
    const pull = async (controller: ReadableStreamDefaultController<Bytes>): Promise<void> => {
      const { value } = await source.read();
      if (value) controller.enqueue(value);
      else controller.close();
    };
    super({ pull, cancel: (reason) => source.cancel(reason) }, { highWaterMark: 0 });
    this.#source = source;
  }

  /** The stream is nobody else's from here on. @throws TypeError when it is somebody's already */
  take(): Source {
    this.getReader();
    return this.#source;
  }

  override async *values({ preventCancel = false } = {}): ReadableStreamAsyncIterator<Bytes> {
    const source = this.take();
    let isOver = false;
    try {
      for (;;) {
        isOver = true; // unless it goes on
        const { value } = await source.read();
        if (!value) return;
        isOver = false;
        yield value;
      }
    } finally {
      if (!isOver && !preventCancel) await source.cancel();
    }
  }

  override [Symbol.asyncIterator](): ReadableStreamAsyncIterator<Bytes> {
    return this.values();
  }
}

/** Takes the body of an answer, to be read here and by nobody else; undefined when it has none. */
export function sourceOf({ body }: Response): Source | undefined {
  if (!body) return undefined;
  return body instanceof AnswerBody ? body.take() : body.getReader();
}

/** The same answer with another body. */
export const withBody = ({ status, statusText, headers }: Response, source: Source): Response =>
  new Response(new AnswerBody(source), { status, statusText, headers });

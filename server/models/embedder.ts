// What makes vectors of texts for the store: an OpenAI-compatible endpoint, or code of the user. Either is given a time,
// and what it answers is looked at before anything is written. Messages hold no text of a provider or of a user.
import { deadline } from "../clock.ts";
import { EmbeddingFailed } from "../errors.ts";
import type { Embedder } from "../storage/store/vectors.ts";
import { factsOf } from "./answer.ts";

/** LangChain's Embeddings, as far as it is used. */
export interface EmbeddingsLike {
  embedDocuments(texts: string[]): Promise<number[][]>;
  embedQuery(text: string): Promise<number[]>;
}

export interface EmbedderOptions {
  /** As langgraph.json names it. */
  readonly name: string;
  readonly dims: number;
  readonly fields: readonly string[];
  readonly timeoutMs: number;
}

/** Calls to one endpoint at a time; more wait, within their time. */
const CONCURRENCY = 32;

/** A model of the endpoint that this process uses. */
export async function openaiEmbeddings(
  model: string,
  { dims, timeoutMs }: EmbedderOptions,
): Promise<EmbeddingsLike> {
  const { OpenAIEmbeddings } = await import("@langchain/openai");
  const embeddings = new OpenAIEmbeddings({
    model,
    timeout: timeoutMs,
    maxRetries: 0,
    maxConcurrency: CONCURRENCY,
    // Others refuse to be told.
    ...(model.startsWith("text-embedding-3") ? { dimensions: dims } : {}),
  });
  return {
    embedDocuments: (texts) => embeddings.embedDocuments(texts),
    embedQuery: (text) => embeddings.embedQuery(text),
  };
}

/** A function that makes a vector of each text. */
export const embeddingsOf = (embed: (texts: string[]) => Promise<number[][]>): EmbeddingsLike => ({
  embedDocuments: async (texts) => embed(texts),
  embedQuery: async (text) => (await embed([text]))[0] ?? [],
});

export function embedderOf(embeddings: EmbeddingsLike, options: EmbedderOptions): Embedder {
  const { name, dims, fields, timeoutMs } = options;
  const bounded = async (work: () => Promise<unknown>, count: number, signal?: AbortSignal) => {
    signal?.throwIfAborted();
    const over = deadline(timeoutMs, signal);
    try {
      return vectorsOf(await within(work, over), count, options);
    } catch (error) {
      signal?.throwIfAborted();
      if (over.aborted) throw late(options);
      throw error instanceof EmbeddingFailed ? error : failure(error, name);
    }
  };
  return {
    name: `${name}/${dims}`,
    fields,
    documents: (texts, signal) => bounded(() => embeddings.embedDocuments([...texts]), texts.length, signal),
    queries: (texts, signal) =>
      bounded(() => Promise.all(texts.map((text) => embeddings.embedQuery(text))), texts.length, signal),
  };
}

/** What is late is left alone: whoever answers has nobody to tell. */
async function within<T>(work: () => Promise<T>, over: AbortSignal): Promise<T> {
  const { promise, reject } = Promise.withResolvers<never>();
  const onOver = (): void => reject(over.reason);
  over.addEventListener("abort", onOver, { once: true });
  try {
    return await Promise.race([work(), promise]);
  } finally {
    over.removeEventListener("abort", onOver);
  }
}

function vectorsOf(answer: unknown, count: number, { name, dims }: EmbedderOptions): Float32Array[] {
  const refuse = (what: string): EmbeddingFailed =>
    new EmbeddingFailed(`Embeddings of ${name} are of no use: ${what}. Nothing was written.`, {
      retryable: false,
    });
  if (!Array.isArray(answer) || answer.length !== count)
    throw refuse(`there is not one vector for each of ${count} texts`);
  return answer.map((one: unknown) => {
    const isList = Array.isArray(one) || one instanceof Float32Array || one instanceof Float64Array;
    if (!isList) throw refuse("one of them is no list of numbers");
    if (one.length !== dims)
      throw refuse(`they have ${one.length} dimensions, and store.index.dims of langgraph.json says ${dims}`);
    const vector = Float32Array.from(one);
    if (!vector.every(Number.isFinite)) throw refuse("one of them holds what is no number");
    return vector;
  });
}

const late = ({ name, timeoutMs }: EmbedderOptions): EmbeddingFailed =>
  new EmbeddingFailed(
    `Embeddings of ${name} did not come within ${timeoutMs} ms (HOLDFAST_MODEL_TIMEOUT_MS). Nothing was written. Try again, or allow more time.`,
    { retryable: true },
  );

function failure(error: unknown, name: string): EmbeddingFailed {
  const { status, code, kind } = factsOf(error);
  const [why, what] =
    status === undefined ? [code || kind, "Look at its log and at the network"] : hint(status);
  const isPassing = status === undefined || [408, 409, 429].includes(status) || status >= 500;
  return new EmbeddingFailed(`Embeddings of ${name} failed (${why}). Nothing was written. ${what}.`, {
    retryable: isPassing && code !== "insufficient_quota",
    cause: status === undefined ? error : undefined,
  });
}

function hint(status: number): [string, string] {
  const why = `HTTP ${status}`;
  if (status === 401 || status === 403) return [why, "Check OPENAI_API_KEY"];
  if (status === 404) return [why, "Check the model in store.index.embed and OPENAI_BASE_URL"];
  if (status === 429 || status >= 500) return [why, "Try again later"];
  return [why, "Perhaps a text is longer than the model reads: name fewer fields in store.index or `index`"];
}

// Vectors of texts that a provider made before: only texts that are not known are sent, in one request. A vector says
// something about its text, so one of a text that may not be kept is not kept either.
import type { Caches } from "../../storage/caches/caches.ts";
import type { Embedder } from "../../storage/store/vectors.ts";

export interface VectorCacheOptions {
  readonly caches: Caches;
  /** Who makes them: another endpoint may have another model under the same name. */
  readonly endpoint: string;
  readonly dims: number;
  /** After its last use. */
  readonly ttlMs: number;
  readonly mayKeep: (text: string) => boolean;
}

type Make = (texts: readonly string[], signal?: AbortSignal) => Promise<Float32Array[]>;

/** The same embedder, which asks for what it does not know. */
export function cachedEmbedder(embedder: Embedder, options: VectorCacheOptions): Embedder {
  return {
    ...embedder,
    documents: cached(embedder, options, (texts, signal) => embedder.documents(texts, signal)),
    queries: cached(embedder, options, (texts, signal) => embedder.queries(texts, signal)),
  };
}

const cached =
  ({ name }: Embedder, { caches, endpoint, dims, ttlMs, mayKeep }: VectorCacheOptions, make: Make): Make =>
  async (texts, signal) => {
    const keys = new Map<string, string>();
    for (const text of new Set(texts)) {
      const key = mayKeep(text) ? await caches.keyOf("vector", endpoint, name, text) : undefined;
      if (key !== undefined) keys.set(text, key);
    }
    const hits =
      keys.size > 0 ? await caches.get("embeddings", [...keys.values()], { renewMs: ttlMs }) : undefined;
    const known = new Map<string, Float32Array>();
    for (const [text, key] of keys) {
      const vector = vectorIn(hits?.get(key)?.value, dims);
      if (vector) known.set(text, vector);
    }
    const missing = [...new Set(texts)].filter((text) => !known.has(text));
    const made = missing.length > 0 ? await make(missing, signal) : [];
    for (const [index, text] of missing.entries()) {
      const vector = made[index];
      if (vector) known.set(text, vector);
    }
    await caches.put(
      "embeddings",
      missing.flatMap((text) => {
        const [key, vector] = [keys.get(text), known.get(text)];
        return key !== undefined && vector ? [{ key, value: bytesOf(vector), ttlMs }] : [];
      }),
    );
    return texts.flatMap((text) => known.get(text) ?? []);
  };

const bytesOf = ({ buffer, byteOffset, byteLength }: Float32Array): Uint8Array =>
  new Uint8Array(buffer, byteOffset, byteLength);

function vectorIn(bytes: Buffer | undefined, dims: number): Float32Array | undefined {
  if (bytes?.length !== dims * Float32Array.BYTES_PER_ELEMENT) return undefined;
  return new Float32Array(Uint8Array.from(bytes).buffer); // a copy begins where float4 may
}

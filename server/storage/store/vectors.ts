// Vectors of items as bytes. The exact form is float4. The coarse form has one byte a dimension and says how far the
// score that is worked out from it can be off: a search reads a quarter of the bytes, and looks exactly only where it must.
export interface Embedder {
  /** Under which its vectors are kept; only vectors of one name are compared. */
  readonly name: string;
  /** What of an item is embedded when nothing else is said: paths into its value. */
  readonly fields: readonly string[];
  /** One vector for each text. Bounded in time. @throws EmbeddingFailed, or the reason of the signal */
  documents(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]>;
  /** The same for texts that are searched for. */
  queries(texts: readonly string[], signal?: AbortSignal): Promise<Float32Array[]>;
}

/** All vectors of one item, one after the other. */
export interface ItemVectors {
  readonly embedder: string;
  readonly coarse: Buffer;
  readonly exact: Buffer;
}

/** Between which two numbers a score is. */
export interface Bounds {
  readonly lower: number;
  readonly upper: number;
}

/** Scale and error, a float4 each, stand before the bytes of a coarse vector. */
const HEAD = 8;
/** Sums of rounded numbers are off by far less than this. */
const SLACK = 1e-6;

export function pack(embedder: string, vectors: readonly Float32Array[]): ItemVectors {
  return {
    embedder,
    coarse: Buffer.concat(vectors.map(coarsen)),
    exact: Buffer.concat(
      vectors.map(({ buffer, byteOffset, byteLength }) => Buffer.from(buffer, byteOffset, byteLength)),
    ),
  };
}

/** Of length 1; a vector without a length stays as it is. */
export function unit(vector: Float32Array): Float64Array {
  const length = lengthOf(vector) || 1;
  return Float64Array.from(vector, (one) => one / length);
}

/** Where the cosine similarity of an item's nearest vector is, by the coarse ones. @param query of length 1 */
export function boundsOf(coarse: Buffer, query: Float64Array): Bounds {
  let [lower, upper] = [-Infinity, -Infinity];
  for (let at = 0; at < coarse.length; at += HEAD + query.length) {
    const levels = new Int8Array(coarse.buffer, coarse.byteOffset + at + HEAD, query.length);
    const score = coarseDot(levels, query) * coarse.readFloatLE(at);
    const error = coarse.readFloatLE(at + 4);
    lower = Math.max(lower, score - error);
    upper = Math.max(upper, score + error);
  }
  return { lower, upper };
}

/** The cosine similarity of an item's nearest vector, from -1 to 1. @param query of length 1 */
export function scoreOf(exact: Buffer, query: Float64Array): number {
  const all = new Float32Array(Uint8Array.from(exact).buffer); // a copy begins where float4 may
  let best = -1;
  for (let at = 0; at < all.length; at += query.length) {
    const vector = all.subarray(at, at + query.length);
    best = Math.max(best, dot(vector, query) / (lengthOf(vector) || 1));
  }
  return Math.min(best, 1);
}

function coarsen(exact: Float32Array): Buffer {
  const vector = unit(exact);
  const scale = Math.fround(vector.reduce((most, one) => Math.max(most, Math.abs(one)), 0) / 127) || 1;
  const coarse = Buffer.alloc(HEAD + vector.length);
  let square = 0;
  vector.forEach((one, index) => {
    const level = Math.max(-127, Math.min(127, Math.round(one / scale)));
    coarse.writeInt8(level, HEAD + index);
    square += (one - level * scale) ** 2;
  });
  coarse.writeFloatLE(scale, 0);
  // What is left over has this length, so its product with a vector of length 1 is at most that.
  coarse.writeFloatLE(Math.sqrt(square) + SLACK, 4);
  return coarse;
}

const lengthOf = (vector: Float32Array): number => Math.sqrt(dot(vector, vector));

// The same loop twice: one that met arrays of three kinds would be slower for each.
function coarseDot(one: Int8Array, other: Float64Array): number {
  let sum = 0;
  for (let index = 0; index < one.length; index += 1) sum += (one[index] ?? 0) * (other[index] ?? 0);
  return sum;
}

function dot(one: Float32Array, other: Float32Array | Float64Array): number {
  let sum = 0;
  for (let index = 0; index < one.length; index += 1) sum += (one[index] ?? 0) * (other[index] ?? 0);
  return sum;
}

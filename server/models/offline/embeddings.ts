// POST /v1/embeddings: vectors of length 1 made from the text alone. Equal text gives an equal vector;
// the vectors carry no meaning, so they serve tests and never a search.
import { createHash } from "node:crypto";
import { z } from "zod";
import { countTokens } from "../tokens.ts";

export const embeddingsRequest = z.looseObject({
  model: z.string().min(1),
  input: z.union([z.string(), z.array(z.string()).min(1).max(2048)]),
  dimensions: z.number().int().min(1).max(4096).optional(),
  encoding_format: z.enum(["float", "base64"]).optional(),
});

const DIMENSIONS = 256;

export async function embed(request: z.infer<typeof embeddingsRequest>): Promise<object> {
  const { model, input, dimensions = DIMENSIONS, encoding_format: format } = request;
  const texts = typeof input === "string" ? [input] : input;
  const counts = await Promise.all(texts.map(async (text) => countTokens(text, model)));
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  const data = texts.map((text, index) => {
    const vector = vectorOf(text, dimensions);
    const embedding = format === "base64" ? Buffer.from(vector.buffer).toString("base64") : [...vector];
    return { object: "embedding", index, embedding };
  });
  return { object: "list", model, data, usage: { prompt_tokens: tokens, total_tokens: tokens } };
}

function vectorOf(text: string, dimensions: number): Float32Array {
  const bytes = createHash("shake256", { outputLength: dimensions * 4 })
    .update(text)
    .digest();
  const vector = Float32Array.from(
    { length: dimensions },
    (_, index) => bytes.readInt32LE(index * 4) / 2 ** 31,
  );
  const length = Math.hypot(...vector) || 1;
  return vector.map((value) => value / length);
}

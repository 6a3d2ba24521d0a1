// What store.index of langgraph.json names: who makes vectors for the store, and of what.
import { ConfigInvalid } from "../../errors.ts";
import { cachedEmbedder } from "../../models/caching/vectors.ts";
import type { VectorCacheOptions } from "../../models/caching/vectors.ts";
import { embedderOf, embeddingsOf, openaiEmbeddings } from "../../models/embedder.ts";
import type { EmbedderOptions, EmbeddingsLike } from "../../models/embedder.ts";
import type { Embedder } from "../../storage/store/vectors.ts";
import type { GraphsFile } from "./graphs.ts";
import { importSetting } from "./modules.ts";

const NAME = "store.index.embed";

/** Vectors of providers are kept; those of code of the user are not, which may be other code tomorrow. */
export type VectorCache = Omit<VectorCacheOptions, "dims">;

/**
 * The embedder of the store; undefined when langgraph.json names none.
 * @param hasEndpoint whether this process knows where to ask an OpenAI model
 * @throws ConfigInvalid in one sentence
 */
export async function openEmbedder(
  { path, storeIndex }: GraphsFile,
  {
    timeoutMs,
    hasEndpoint,
    cache,
  }: { timeoutMs: number; hasEndpoint: boolean; cache?: VectorCache | undefined },
): Promise<Embedder | undefined> {
  if (!storeIndex) return undefined;
  const { embed, dims, fields } = storeIndex;
  const options: EmbedderOptions = { name: embed, dims, fields, timeoutMs };
  if (/\.[cm]?[jt]sx?(:\w+)?$/.test(embed))
    return embedderOf(await importSetting(path, { name: NAME, spec: embed }, toEmbeddings), options);
  const [, provider, model] = /^(\w+):(.+)$/.exec(embed) ?? [];
  if (provider !== "openai" || model === undefined)
    throw new ConfigInvalid(
      `${path}: ${NAME} is ${embed}; it must be openai:<model> or a file such as ./embed.ts:embed.`,
    );
  if (!hasEndpoint)
    throw new ConfigInvalid(`${path}: ${NAME} is ${embed}, which needs OPENAI_API_KEY or OPENAI_BASE_URL.`);
  const embedder = embedderOf(await openaiEmbeddings(model, options), options);
  return cache ? cachedEmbedder(embedder, { ...cache, dims }) : embedder;
}

function toEmbeddings(value: unknown): EmbeddingsLike {
  if (typeof value === "function") return embeddingsOf(async (texts) => value(texts));
  if (isEmbeddings(value)) return value;
  throw new Error("it is neither a function nor has it embedDocuments and embedQuery");
}

const isEmbeddings = (value: unknown): value is EmbeddingsLike =>
  typeof value === "object" &&
  value !== null &&
  "embedDocuments" in value &&
  typeof value.embedDocuments === "function" &&
  "embedQuery" in value &&
  typeof value.embedQuery === "function";

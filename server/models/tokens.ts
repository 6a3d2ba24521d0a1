// Exact token counts, equal to tiktoken's, without ever stalling the main loop: worker threads load the
// encodings and count. Short and long texts have a thread each, so a hostile text delays only its kind.
// A count that takes too long is refused and its thread released; nothing is ever estimated.
import { once } from "node:events";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { deadline } from "../clock.ts";
import { BudgetExceeded, messageOf } from "../errors.ts";
import type { Encoding } from "./encoding.ts";

export interface CountJob {
  readonly encoding: Encoding;
  readonly texts: readonly string[];
}

export interface ChatText {
  readonly role: string;
  readonly content: string;
  readonly name?: string | undefined;
}

// The compiled package has .js beside .js, a clone .ts beside .ts.
const WORKER = new URL(`./token-worker${extname(import.meta.url)}`, import.meta.url);
const LONG_TEXT = 65_536;
const COUNT_TIMEOUT_MS = 30_000;
/** In characters, of all cached texts together. */
const MAX_CACHED = 4_000_000;

/** Longest prefix wins; a name that matches none is counted with o200k_base and marked approximate. */
const encodings: readonly (readonly [prefix: string, encoding: Encoding])[] = [
  ["gpt-5", "o200k_base"],
  ["gpt-4.5", "o200k_base"],
  ["gpt-4.1", "o200k_base"],
  ["gpt-4o", "o200k_base"],
  ["chatgpt-4o", "o200k_base"],
  ["o1", "o200k_base"],
  ["o3", "o200k_base"],
  ["o4", "o200k_base"],
  ["gpt-oss", "o200k_base"],
  ["gpt-4", "cl100k_base"],
  ["gpt-3.5", "cl100k_base"],
  ["text-embedding-3-", "cl100k_base"],
  ["text-embedding-ada-002", "cl100k_base"],
];

// What a chat message costs beside its content, its role and its name, and what opens the reply.
const PER_MESSAGE = 3;
const PER_NAME = 1;
const REPLY = 3;

/** What the operator says of a model, which wins: a deployment may have any name. */
let preferred: (model: string) => Encoding | undefined = () => undefined;
export function preferEncodings(lookup: (model: string) => Encoding | undefined): void {
  preferred = lookup;
}

/**
 * The encoding a model counts with: as the operator says in the models file, else by the name, of which `ft:` and a
 * `provider/` prefix are ignored.
 */
export function encodingOf(model: string): { encoding: Encoding; approximate: boolean } {
  const told = preferred(model);
  if (told) return { encoding: told, approximate: false };
  const name = model.replace(/^ft:/, "").replace(/^.*\//, "");
  const [found] = encodings
    .filter(([prefix]) => name.startsWith(prefix))
    .toSorted(([a], [b]) => b.length - a.length);
  return { encoding: found?.[1] ?? "o200k_base", approximate: found === undefined };
}

/**
 * Counts the tokens of a text, exactly.
 * @example await countTokens("Hello, world!", "gpt-4.1-mini") // 4
 * @throws BudgetExceeded if the text takes longer than 30 s to count
 */
export async function countTokens(text: string, model: string): Promise<number> {
  const [count = 0] = await countAll([text], encodingOf(model).encoding);
  return count;
}

/**
 * Counts the tokens of a chat prompt as the provider bills it: contents, roles, names and framing.
 * Text only: images and tool schemas are not counted.
 * @example await countChatTokens([{ role: "user", content: "Hi" }], "gpt-4.1-mini") // 8
 * @throws BudgetExceeded if the texts take longer than 30 s to count
 */
export async function countChatTokens(messages: readonly ChatText[], model: string): Promise<number> {
  const texts = messages.flatMap(({ role, content, name }) => [role, content, ...(name ? [name] : [])]);
  const counts = await countAll(texts, encodingOf(model).encoding);
  const named = messages.filter(({ name }) => name).length;
  return counts.reduce((sum, count) => sum + count, REPLY + PER_MESSAGE * messages.length + PER_NAME * named);
}

/** Releases the counting threads; the next count starts them again. */
export async function stopCounting(): Promise<void> {
  await Promise.all([short.stop(), long.stop()]);
}

async function countAll(texts: readonly string[], encoding: Encoding): Promise<number[]> {
  const counts = new Map(texts.map((text) => [text, cached.get(keyOf(encoding, text))]));
  const missing = [...counts.keys()].filter((text) => counts.get(text) === undefined);
  const isLong = missing.reduce((sum, text) => sum + text.length, 0) > LONG_TEXT;
  const fresh = missing.length === 0 ? [] : await (isLong ? long : short).count({ encoding, texts: missing });
  for (const [index, text] of missing.entries()) {
    const count = fresh[index] ?? 0;
    counts.set(text, count);
    remember(keyOf(encoding, text), count);
  }
  return texts.map((text) => counts.get(text) ?? 0);
}

/** Counts by text, in memory only: the passages and history that every turn counts again. */
const cached = new Map<string, number>();
let cachedSize = 0;
const keyOf = (encoding: Encoding, text: string): string => `${encoding} ${text}`;

function remember(key: string, count: number): void {
  if (key.length > MAX_CACHED) return;
  if (cachedSize + key.length > MAX_CACHED) {
    cached.clear();
    cachedSize = 0;
  }
  cached.set(key, count);
  cachedSize += key.length;
}

/** A counting thread: one job at a time, started by its first job, never keeping the process alive. */
class Lane {
  #worker: Worker | undefined;
  #last: Promise<unknown> = Promise.resolve();

  async count(job: CountJob): Promise<number[]> {
    const result = this.#last.then(() => this.#run(job));
    // The next job waits for this one whatever becomes of it; its own caller sees the failure.
    this.#last = result.catch(() => undefined);
    return result;
  }

  async stop(): Promise<void> {
    await this.#last;
    await this.#release();
  }

  async #run(job: CountJob): Promise<number[]> {
    const worker = (this.#worker ??= this.#start());
    worker.ref();
    worker.postMessage(job, []);
    try {
      const [counts] = await once(worker, "message", { signal: deadline(COUNT_TIMEOUT_MS) });
      // The worker answers a CountJob with one count for each text.
      return counts as number[];
    } catch (error) {
      await this.#release();
      throw new BudgetExceeded(
        `A text could not be counted within ${COUNT_TIMEOUT_MS} ms, so it was not sent: ${messageOf(error)}. Send less.`,
        { cause: error },
      );
    } finally {
      worker.unref();
    }
  }

  #start(): Worker {
    const worker = new Worker(WORKER, { execArgv: [], name: "count-tokens" });
    // Between two jobs nobody listens, and an error without a listener would end the process.
    worker.on("error", () => undefined);
    worker.once("exit", () => {
      if (this.#worker === worker) this.#worker = undefined;
    });
    return worker;
  }

  async #release(): Promise<void> {
    const worker = this.#worker;
    this.#worker = undefined;
    await worker?.terminate();
  }
}

const short = new Lane();
const long = new Lane();

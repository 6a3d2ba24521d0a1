// PDF bytes to text, in a thread of its own with a limit on time and memory: one bad file stops nothing.
import { once } from "node:events";
import { extname } from "node:path";
import { Worker } from "node:worker_threads";
import { deadline } from "../clock.ts";
import { DocumentUnreadable, messageOf } from "../errors.ts";
import type { PdfAnswer } from "./pdf-worker.ts";

const PDF_TIMEOUT_MS = 20_000;
const MAX_HEAP_MB = 512;

// The compiled package has .js beside .js, a clone .ts beside .ts.
const WORKER = new URL(`./pdf-worker${extname(import.meta.url)}`, import.meta.url);

/**
 * The text of each page, and the title in the file's metadata or "".
 * @param name names the file in an error
 * @throws DocumentUnreadable when it is damaged, locked by a password, too slow to parse, or holds no text
 */
export async function readPdf(
  bytes: Uint8Array,
  {
    name,
    timeoutMs = PDF_TIMEOUT_MS,
    signal,
  }: { name: string; timeoutMs?: number; signal?: AbortSignal | undefined },
): Promise<{ text: string; title: string }> {
  const answer = await ask(bytes, deadline(timeoutMs, signal)).catch((error: unknown) => {
    signal?.throwIfAborted();
    const late = error instanceof Error && error.name === "AbortError";
    const reason = late ? `it took longer than ${timeoutMs / 1000} seconds` : messageOf(error);
    throw new DocumentUnreadable(`${name} cannot be read as PDF: ${reason}.`, { cause: error });
  });
  if ("reason" in answer) throw new DocumentUnreadable(`${name} cannot be read as PDF: ${answer.reason}`);
  const text = answer.pages.join("\n\n");
  if (text.trim() !== "") return { text, title: answer.title };
  throw new DocumentUnreadable(`${name} holds no text. If its pages are images, run text recognition on it.`);
}

async function ask(bytes: Uint8Array, signal: AbortSignal): Promise<PdfAnswer> {
  const worker = new Worker(WORKER, {
    workerData: bytes,
    env: {},
    execArgv: [],
    stdout: true,
    stderr: true,
    resourceLimits: { maxOldGenerationSizeMb: MAX_HEAP_MB },
  });
  const exited = once(worker, "exit");
  try {
    // The worker posts exactly one PdfAnswer; a crash rejects through its error event.
    const [answer] = (await once(worker, "message", { signal })) as [PdfAnswer];
    return answer;
  } finally {
    await worker.terminate();
    await exited;
  }
}

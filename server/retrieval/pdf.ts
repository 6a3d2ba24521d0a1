// PDF bytes to text, in a thread of its own with a limit on time and memory: one bad file stops nothing.
import { extname } from "node:path";
import { deadline } from "../clock.ts";
import { DocumentUnreadable, messageOf } from "../errors.ts";
import { askThread } from "./parse-thread.ts";
import type { PdfAnswer } from "./pdf-worker.ts";

const PDF_TIMEOUT_MS = 20_000;

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
  const asked = askThread<PdfAnswer>(WORKER, bytes, deadline(timeoutMs, signal));
  const answer = await asked.catch((error: unknown) => {
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

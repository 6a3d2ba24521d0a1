// The worker thread that parses one PDF. A hostile file can waste this thread's time and memory, no more.
import { parentPort, workerData } from "node:worker_threads";
import { extractText, getDocumentProxy, getMeta } from "unpdf";
import { messageOf } from "../errors.ts";

/** What the worker answers, once. */
export type PdfAnswer =
  | { readonly pages: readonly string[]; readonly title: string }
  | { readonly reason: string };

const ONLY_ERRORS = 0;

// readPdf() starts this thread with the bytes of the file.
parentPort?.postMessage(await parse(workerData as Uint8Array), []);

async function parse(bytes: Uint8Array): Promise<PdfAnswer> {
  try {
    const pdf = await getDocumentProxy(new Uint8Array(bytes), { verbosity: ONLY_ERRORS });
    const { text } = await extractText(pdf, { mergePages: false });
    const { info } = await getMeta(pdf);
    const title: unknown = info["Title"];
    return { pages: text, title: typeof title === "string" ? title.trim() : "" };
  } catch (error) {
    return { reason: messageOf(error) };
  }
}

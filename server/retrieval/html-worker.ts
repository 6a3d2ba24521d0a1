// The worker thread that reads one page of HTML. A nesting that takes seconds to parse takes them here.
import { parentPort, workerData } from "node:worker_threads";
import { htmlText } from "./html-text.ts";

/** What the worker answers, once; null: it is no HTML that can be read. */
export type HtmlAnswer = ReturnType<typeof htmlText> | null;

// readHtml() starts this thread with the text of the page.
parentPort?.postMessage(read(String(workerData)), []);

function read(html: string): HtmlAnswer {
  try {
    return htmlText(html, html.length);
  } catch {
    return null;
  }
}

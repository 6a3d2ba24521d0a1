// Text of HTML that comes from anywhere, read in a thread of its own: one hostile page stalls no other run.
import { extname } from "node:path";
import { deadline } from "../clock.ts";
import { askThread } from "./parse-thread.ts";
import type { HtmlAnswer } from "./html-worker.ts";

const TIMEOUT_MS = 5000;

// The compiled package has .js beside .js, a clone .ts beside .ts.
const WORKER = new URL(`./html-worker${extname(import.meta.url)}`, import.meta.url);

/** Text and title; undefined when it cannot be read in time. @throws the reason of `signal` when that aborts */
export async function readHtml(
  html: string,
  signal: AbortSignal,
): Promise<{ text: string; title: string } | undefined> {
  const answer = await askThread<HtmlAnswer>(WORKER, html, deadline(TIMEOUT_MS, signal)).catch(() => null);
  signal.throwIfAborted();
  return answer ?? undefined;
}

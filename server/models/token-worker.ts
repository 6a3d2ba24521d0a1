// The thread that counts: the encodings are loaded and every text is split here, never on the main loop.
// One message in, one message out.
import { parentPort } from "node:worker_threads";
import { countWith } from "./encoding.ts";
import type { CountJob } from "./tokens.ts";

parentPort?.on("message", ({ encoding, texts }: CountJob) => {
  const counts = texts.map((text) => countWith(encoding, text));
  parentPort?.postMessage(counts, []);
});

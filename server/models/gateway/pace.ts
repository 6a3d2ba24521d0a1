// The bytes of a streamed answer in portions. Clients of providers work through all that has come before anything else of
// this process gets its turn: an answer that comes at once would be shown at once, at its end, and everybody else waits.
import { turn, within } from "../../clock.ts";
import type { Bytes, Source } from "../answer-body.ts";

export interface Paced extends Source {
  /** What has come and was not handed on; it never is. */
  takeRest(): Bytes | undefined;
}

/** So many frames are shown before more of them are read; later so many are read in one turn of the event loop. */
const FIRST_FRAMES = 4;
const MORE_FRAMES = 64;
/** The first ones are not waited for longer. */
const SHOWN_MS = 10;

/** @param shown resolves when what was handed on so far can be seen */
export function paced(source: Source, shown: () => Promise<void>): Paced {
  let left: Bytes | undefined;
  let handed = 0;
  let isShown = false;

  const wait = async (): Promise<void> => {
    await turn();
    if (isShown || handed < FIRST_FRAMES) return;
    isShown = true;
    await within(shown(), SHOWN_MS).catch(() => undefined);
    await turn(); // they can be seen, and only now are they written to those who look
  };
  const portion = (bytes: Bytes): Bytes => {
    const { end, frames } = endOf(bytes, handed < FIRST_FRAMES ? FIRST_FRAMES - handed : MORE_FRAMES);
    handed += frames;
    left = end < bytes.length ? bytes.subarray(end) : undefined;
    return bytes.subarray(0, end);
  };
  return {
    read: async () => {
      if (left) {
        await wait();
        if (left) return { done: false, value: portion(left) }; // unless it was taken meanwhile
      }
      const piece = await source.read();
      return piece.value ? { done: false, value: portion(piece.value) } : piece;
    },
    cancel: (reason) => source.cancel(reason),
    takeRest: () => {
      const rest = left;
      left = undefined;
      return rest;
    },
  };
}

/** Where the given number of frames ends; the end of the bytes if there are no more. */
function endOf(bytes: Uint8Array, most: number): { end: number; frames: number } {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length);
  let end = 0;
  for (let frames = 0; frames < most; frames += 1) {
    const next = buffer.indexOf("\n\n", end);
    if (next === -1) return { end: bytes.length, frames };
    end = next + 2;
  }
  return { end, frames: most };
}

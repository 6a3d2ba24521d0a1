// Clients that are no good: some read so slowly that the server has to put them off to its log, some die in the middle
// and come back later as if nothing had been.
import { setTimeout as delay } from "node:timers/promises";
import { ask } from "../server/commands/chaos/ask.ts";
import type { Asked, Asker, Question } from "../server/commands/chaos/ask.ts";
import { Sight } from "../server/commands/chaos/sight.ts";
import { follow } from "../server/commands/chaos/stream.ts";
import { messageOf } from "../server/errors.ts";
import type { Speak } from "./suite.ts";

const STALL_MS = 3000;
const AWAY_MS = 1500;

/** Stands still now and then, for so long that all buffers between it and the server are full. */
export const slow: Speak = (asker, question, threadId) => {
  const { random } = asker;
  const pause = async (): Promise<void> => {
    if (random.chance(0.002)) await delay(random.between(0, STALL_MS));
  };
  return ask({ ...asker, pause, cutChance: asker.cutChance / 20 }, question, threadId);
};

class ClientGone extends Error {
  override readonly name = "ClientGone";
}

/** Dies after some events; its successor knows the run, but none of its events. */
export const dying: Speak = (asker, question, threadId) => {
  let left = asker.random.between(0, 300);
  const gone = new ClientGone("The client is gone.");
  const pause = async (): Promise<void> => {
    left -= 1;
    if (left < 0) throw gone;
  };
  const first = ask({ ...asker, pause, cutChance: 0 }, question, threadId);
  const done = first.done.then((asked) =>
    asked.troubles.length === 1 && asked.troubles[0] === gone.message
      ? comeBack(asker, question, asked)
      : asked,
  );
  return { ...first, done };
};

async function comeBack(asker: Asker, { modes }: Question, { threadId, runId }: Asked): Promise<Asked> {
  const sight = new Sight(asker, modes);
  const troubles: string[] = [];
  try {
    if (runId === undefined) throw new Error("The run was never accepted.");
    await delay(asker.random.between(0, AWAY_MS));
    const onShortened = (status: string): void => {
      troubles.push(`its stream was ended in order while the run was ${status}`);
    };
    const note = (step: string): void => sight.note(step);
    const frames = follow({ threadId, runId }, undefined, { ...asker, cutChance: 0, onShortened, note });
    for await (const frame of frames) sight.take(frame);
  } catch (error) {
    troubles.push(messageOf(error));
  }
  return { threadId, runId, sight, troubles };
}

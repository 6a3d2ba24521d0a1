// The answer of a provider as bytes: passed on as they come, kept until it is known what they cost. What they say is read
// once, at the end, so that a token costs nothing here while it is on its way.
import { z } from "zod";

/** What a provider says that a call was. */
export interface Billed {
  readonly input: number;
  readonly cached: number;
  readonly output: number;
}

const usage = z.looseObject({
  prompt_tokens: z.int().min(0),
  completion_tokens: z.int().min(0),
  prompt_tokens_details: z.looseObject({ cached_tokens: z.int().min(0).nullish() }).nullish(),
});
const spoken = z.looseObject({
  content: z.string().nullish(),
  refusal: z.string().nullish(),
  reasoning_content: z.string().nullish(),
  tool_calls: z.array(z.looseObject({ function: z.looseObject({}).optional() })).nullish(),
});
const frame = z.looseObject({
  usage: usage.nullish(),
  choices: z.array(z.looseObject({ delta: spoken.nullish(), message: spoken.nullish() })).nullish(),
});
type Frame = z.infer<typeof frame>;

/** Of a longer answer only the end is kept: the bill stands there. */
const MOST_BYTES = 16_777_216;
const BILL = /"usage"\s*:\s*\{/;

/**
 * The same answer, whose end is heard of: once, before its reader knows of it.
 * @param onEnd gets all that was passed on, and whether it came to its end
 */
export function heard(
  response: Response,
  onEnd: (bytes: Uint8Array, isWhole: boolean) => Promise<void>,
): Response {
  const { body, status, statusText, headers } = response;
  const reader = body?.getReader();
  const parts: Uint8Array[] = [];
  let size = 0;
  let isOver = false;
  const end = async (isWhole: boolean): Promise<void> => {
    if (isOver) return;
    isOver = true;
    await onEnd(Buffer.concat(parts), isWhole);
  };
  const stream = new ReadableStream<Uint8Array>(
    {
      pull: async (controller) => {
        try {
          const { done, value } = (await reader?.read()) ?? { done: true, value: undefined };
          if (done) {
            await end(true);
            controller.close();
            return;
          }
          parts.push(value);
          size += value.length;
          while (size > MOST_BYTES && parts.length > 1) size -= parts.shift()?.length ?? 0;
          controller.enqueue(value);
        } catch (error) {
          await end(false);
          throw error;
        }
      },
      cancel: async (reason) => {
        await Promise.allSettled([reader?.cancel(reason), end(false)]);
      },
    },
    { highWaterMark: 0 },
  );
  return new Response(stream, { status, statusText, headers });
}

/** The bill in an answer; undefined: there is none, because the answer broke off or the provider sends none. */
export function billIn(bytes: Uint8Array): Billed | undefined {
  const found = framesOf(bytes, BILL).findLast((one) => one.usage)?.usage;
  return found
    ? {
        input: found.prompt_tokens,
        cached: found.prompt_tokens_details?.cached_tokens ?? 0,
        output: found.completion_tokens,
      }
    : undefined;
}

/** All that a model said in an answer, for counting it. */
export const spokenIn = (bytes: Uint8Array): string =>
  framesOf(bytes)
    .flatMap(({ choices }) => choices ?? [])
    .map(({ delta, message }) => {
      const { content, refusal, reasoning_content: thought, tool_calls: calls } = delta ?? message ?? {};
      return [
        content,
        refusal,
        thought,
        ...(calls ?? []).map((one) => JSON.stringify(one.function ?? "")),
      ].join("");
    })
    .join("");

/** @param only frames that look like it: most of a long answer is not worth reading for its bill */
function framesOf(bytes: Uint8Array, only = /^/): Frame[] {
  const text = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("utf8");
  const documents = text.trimStart().startsWith("{")
    ? [text]
    : text.split("\n").flatMap((line) => (line.startsWith("data:") ? [line.slice(5)] : []));
  return documents
    .filter((one) => only.test(one))
    .flatMap((one) => {
      try {
        return [frame.parse(JSON.parse(one))];
      } catch {
        return []; // [DONE], or half a frame of an answer that broke off
      }
    });
}

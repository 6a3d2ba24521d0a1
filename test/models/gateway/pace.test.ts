// An answer that comes at once is handed on in portions, byte for byte, and its first words are seen before the rest.
import fc from "fast-check";
import { expect, test } from "vitest";
import { sourceOf } from "../../../server/models/answer-body.ts";
import type { Bytes } from "../../../server/models/answer-body.ts";
import { heard } from "../../../server/models/gateway/answer-bytes.ts";
import { paced } from "../../../server/models/gateway/pace.ts";

const frames = (count: number): string =>
  Array.from({ length: count }, (_, index) => `data: {"n":${index}}\n\n`).join("");

function bodyOf(chunks: readonly string[]): ReadableStreamDefaultReader<Bytes> {
  return new ReadableStream<Bytes>({
    start: (controller) => {
      for (const chunk of chunks) controller.enqueue(Buffer.from(chunk));
      controller.close();
    },
  }).getReader();
}

const instantly = (): Promise<void> => Promise.resolve();

async function readAll(source: {
  read(): Promise<{ done: boolean; value?: Uint8Array | undefined }>;
}): Promise<string[]> {
  const parts: string[] = [];
  for (;;) {
    const { done, value } = await source.read();
    if (value) parts.push(Buffer.from(value).toString());
    if (done) return parts;
  }
}

test("any bytes in any chunks come out as they are", async () => {
  const piece = fc.constantFrom("data: a\n\n", "\n", "\n\n", "data: b", "", "x".repeat(700), frames(90));
  await fc.assert(
    fc.asyncProperty(fc.array(piece, { maxLength: 12 }), async (chunks) => {
      const filled = chunks.filter((one) => one !== "");
      expect((await readAll(paced(bodyOf(filled), instantly))).join("")).toBe(filled.join(""));
    }),
    { numRuns: 100 },
  );
});

test("the first frames of a burst are waited for once, and a stream that trickles never is", async () => {
  let waits = 0;
  const shown = async (): Promise<void> => void (waits += 1);
  const burst = await readAll(paced(bodyOf([frames(100)]), shown));
  expect(burst.map((one) => one.split("\n\n").length - 1)).toEqual([4, 64, 32]);
  expect(waits).toBe(1);
  const trickle = Array.from({ length: 9 }, () => frames(1));
  expect(await readAll(paced(bodyOf(trickle), shown))).toEqual(trickle);
  expect(waits).toBe(1);
});

test("what is shown reaches those who look before more of it is read", async () => {
  const order: string[] = [];
  const write = async (): Promise<void> => {
    for (let hop = 0; hop < 50; hop += 1) await Promise.resolve();
    order.push("written");
  };
  const shown = async (): Promise<void> => void write();
  const source = paced(bodyOf([frames(9)]), shown);
  await source.read();
  await source.read();
  order.push("read");
  expect(order).toEqual(["written", "read"]);
});

const never = (): Promise<void> => Promise.withResolvers<void>().promise;

test("what is never shown is not waited for", async () => {
  expect((await readAll(paced(bodyOf([frames(9)]), never))).join("")).toBe(frames(9));
});

test("whoever leaves in the middle of a burst leaves a bill that is read", async () => {
  const bill = `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\ndata: [DONE]\n\n`;
  const ends: { text: string; isWhole: boolean }[] = [];
  const onEnd = async (bytes: Uint8Array, isWhole: boolean): Promise<void> => {
    ends.push({ text: Buffer.from(bytes).toString(), isWhole });
  };
  const reader = heard(new Response(frames(20) + bill), onEnd, { shown: instantly }).body?.getReader();
  await reader?.read();
  await reader?.cancel();
  expect(ends).toEqual([{ text: frames(20) + bill, isWhole: true }]);
});

test("whoever leaves while a portion waits ends the read under way, and leaves a bill that is read", async () => {
  const [last, bill] = [`data: {"choices":[{"index":0,"finish_reason":"stop"}]}\n\n`, "data: [DONE]\n\n"];
  const ends: [text: string, isWhole: boolean][] = [];
  const onEnd = async (bytes: Uint8Array, isWhole: boolean): Promise<void> =>
    void ends.push([Buffer.from(bytes).toString(), isWhole]);
  const source = sourceOf(heard(new Response(frames(6) + last + bill), onEnd, { shown: instantly }));
  await source?.read();
  const waiting = source?.read();
  await source?.cancel();
  await expect(waiting).resolves.toMatchObject({ done: true });
  expect(ends).toEqual([[frames(6) + last + bill, true]]);
});

// Bytes of an answer through the layers of all who listen in: the same for every way to read them, and each way ends,
// fails and is left as with a plain web stream.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { sourceOf, withBody } from "../../server/models/answer-body.ts";
import type { Bytes, Source } from "../../server/models/answer-body.ts";
import { heard } from "../../server/models/gateway/answer-bytes.ts";
import { policyOf } from "../../server/models/resilience/policy.ts";
import { Resilience } from "../../server/models/resilience/resilience.ts";
import { until } from "../support/until.ts";

interface Given extends Source {
  readonly left: unknown[];
}

/** Gives these pieces, then ends or fails. */
function given(pieces: readonly string[], failure?: Error): Given {
  const rest = [...pieces];
  const left: unknown[] = [];
  return {
    left,
    read: async () => {
      const next = rest.shift();
      if (next !== undefined) return { done: false, value: Buffer.from(next) };
      if (failure) throw failure;
      return { done: true };
    },
    cancel: async (reason) => void left.push(reason),
  };
}

/** As handed on by so many who listen in. */
function layered(source: Source, layers: number): Response {
  let response = withBody(new Response(), source);
  for (let layer = 0; layer < layers; layer += 1) response = heard(response, async () => undefined);
  return response;
}

const bodyOf = (response: Response): ReadableStream<Bytes> => {
  if (!response.body) throw new Error("The answer has no body.");
  return response.body;
};

async function pulled(response: Response): Promise<string> {
  const reader = bodyOf(response).getReader();
  let text = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return text;
    text += Buffer.from(value).toString();
  }
}

async function iterated(response: Response): Promise<string> {
  let text = "";
  for await (const piece of bodyOf(response)) text += Buffer.from(piece).toString();
  return text;
}

const ways: readonly [string, (response: Response) => Promise<string>][] = [
  ["text()", (response) => response.text()],
  ["a reader", pulled],
  ["for await", iterated],
  ["a copy", (response) => response.clone().text()],
  ["a pipe", (response) => new Response(bodyOf(response).pipeThrough(new TransformStream())).text()],
];

test.each(ways)("%s gets every byte, through any number of layers", async (_, read) => {
  const pieces = fc.array(fc.string({ minLength: 1, maxLength: 20 }), { maxLength: 10 });
  await fc.assert(
    fc.asyncProperty(pieces, fc.nat(3), async (given_, layers) => {
      const wellFormed = given_.map((one) => one.toWellFormed());
      expect(await read(layered(given(wellFormed), layers))).toBe(wellFormed.join(""));
    }),
    { numRuns: 50 },
  );
});

test.each(ways)("%s fails with the reason of the source", async (_, read) => {
  const failure = new Error("broke off");
  await expect(read(layered(given(["half"], failure), 2))).rejects.toThrow("broke off");
});

test("who leaves in the middle leaves the source, once", async () => {
  const [iteratedFrom, readFrom] = [given(["a", "b", "c"]), given(["a", "b", "c"])];
  for await (const piece of bodyOf(layered(iteratedFrom, 2))) {
    expect(Buffer.from(piece).toString()).toBe("a");
    break;
  }
  expect(iteratedFrom.left).toHaveLength(1);
  const reader = bodyOf(layered(readFrom, 2)).getReader();
  await reader.read();
  await reader.cancel("enough");
  expect(readFrom.left).toEqual(["enough"]);
});

test("a body is read by one", async () => {
  const response = layered(given(["a"]), 0);
  expect(sourceOf(response)).toBeDefined();
  expect(() => sourceOf(response)).toThrow(TypeError);
  await expect(iterated(response)).rejects.toThrow(TypeError);
  await expect(response.text()).rejects.toThrow(TypeError);
  expect(sourceOf(new Response())).toBeUndefined();
});

test("the end of an answer without a body is heard of, because nobody will read it", () => {
  const ends: [bytes: number, isWhole: boolean][] = [];
  const response = heard(new Response(null, { status: 204 }), async (bytes, isWhole) => {
    ends.push([bytes.length, isWhole]);
  });
  expect([response.status, response.body, ends]).toEqual([204, null, [[0, true]]]);
});

const SAID = `data: {"choices":[{"index":0,"delta":{"content":"Yes."},"finish_reason":"stop"}]}\n\n`;
const BILL = `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":9}}\n\ndata: [DONE]\n\n`;
const connections = new Set<unknown>();
let answers = 0;
/** A provider whose bill comes a moment after the last word. */
const provider = createServer((request, response) => {
  request.resume();
  connections.add(request.socket);
  response.writeHead(200, { "content-type": "text/event-stream" });
  response.write(SAID);
  setTimeout(() => response.end(BILL, () => (answers += 1)), 50);
});

beforeAll(() => new Promise<void>((resolve) => void provider.listen(0, "127.0.0.1", resolve)));
afterAll(() => void provider.close());

test("who leaves after the last word leaves a bill that is read, and a connection that serves again", async () => {
  const url = `http://127.0.0.1:${(provider.address() as AddressInfo).port}/`;
  const ends: [text: string, isWhole: boolean][] = [];
  const resilience = new Resilience({ policyOf: () => policyOf(5000) });
  const ask = (): ReturnType<Resilience["ask"]> =>
    resilience.ask({
      chain: ["m"],
      tokens: 1,
      send: async ({ signal }) =>
        heard(await fetch(url, { method: "POST", body: "{}", signal }), async (bytes, isWhole) => {
          ends.push([Buffer.from(bytes).toString(), isWhole]);
        }),
    });
  for (let call = 1; call <= 3; call += 1) {
    const { response } = await ask();
    for await (const piece of bodyOf(response)) {
      expect(Buffer.from(piece).toString()).toBe(SAID);
      break;
    }
    await until(() => ends.length === call, "the bill");
    await until(() => answers === call, "the end of the answer");
  }
  expect(ends).toEqual(Array.from({ length: 3 }, () => [SAID + BILL, true]));
  expect(connections.size).toBe(1);
});

// Clients leave an answer at its last word and ask again at once: what the answer gives back is there for the next call of
// the run, and nothing of an attempt stays reserved beyond it.
import { ChatOpenAI } from "@langchain/openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { onBehalfOf } from "../../../server/models/gateway/context.ts";
import { interceptCalls } from "../../../server/models/gateway/intercept.ts";
import { testDatabase } from "../../support/database.ts";
import type { TestDatabase } from "../../support/database.ts";
import { answering, frameOf, openRig, said, STREAM } from "../../support/gateway.ts";
import type { Answering } from "../../support/gateway.ts";

let scratch: TestDatabase;
beforeAll(async () => {
  scratch = await testDatabase();
});
afterAll(() => scratch.close());

const SAID = said("hi", { finish_reason: "stop" });
const BILL = `${frameOf({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } })}data: [DONE]\n\n`;
/** Two of these do not fit under a budget of 1,000 tokens. */
const request = {
  model: "gpt-4.1-mini",
  stream: true,
  max_tokens: 600,
  messages: [{ role: "user", content: "hello" }],
};

/** Tells its bill a moment after the last word. */
const billingLate = (): Promise<Answering> =>
  answering((_, response) => {
    response.writeHead(200, STREAM).write(SAID);
    setTimeout(() => response.end(BILL), 50);
  });

/** A client that has what it wants after the first piece. */
async function readFirst(response: Response): Promise<string> {
  for await (const piece of response.body ?? []) return Buffer.from(piece).toString();
  return "";
}

test.each([
  ["with the bill", { stream_options: { include_usage: true } }],
  ["without the bill", {}],
])("a call has the room that one gives back whose reader has just left, of a stream %s", async (_, more) => {
  const { send, calls, budget, gateway, context } = await openRig(scratch.database, { tokens: 1000 });
  const provider = await billingLate();
  for (let call = 1; call <= 3; call += 1) {
    const response = await send(provider.url, { ...request, ...more });
    expect([response.status, await readFirst(response)]).toEqual([200, SAID]);
  }
  await gateway.close(context);
  provider.close();

  expect(await calls()).toMatchObject(Array.from({ length: 3 }, () => ({ state: "settled", output: 4 })));
  expect(await budget()).toEqual({ spent: 21, reserved: 0 });
});

test("what is reserved ahead has the room that a call gives back whose reader has just left", async () => {
  const { send, budget, gateway, context } = await openRig(scratch.database, { tokens: 1000 });
  const provider = await billingLate();
  await readFirst(await send(provider.url, request));
  const coming = { model: "gpt-4.1-mini", promptTokens: 8, maxOutputTokens: 600 };
  await onBehalfOf(context, () => gateway.reserve(coming, context));

  expect(await budget()).toEqual({ spent: 7, reserved: 608 });
  await gateway.close(context);
  provider.close();
});

test.each(["leaves", "aborts"])("nothing stays reserved of an attempt whose client %s", async (how) => {
  const { send, budget, gateway, context } = await openRig(scratch.database, { tokens: 1000 });
  const provider = await billingLate();
  const leaving = new AbortController();
  const response = await send(provider.url, request, { signal: leaving.signal });
  if (how === "leaves") await readFirst(response);
  else leaving.abort(new Error("not wanted"));
  await gateway.close(context);

  expect(await budget()).toMatchObject({ reserved: 0 });
  provider.close();
});

test.each([
  ["that asks for the bill", true],
  ["that does not", false],
])(
  "the client of LangChain, %s, asks again and again under a budget for one call",
  async (_, streamUsage) => {
    const { budget, gateway, context } = await openRig(scratch.database, { tokens: 1000 });
    const provider = await answering((__, response) => {
      response.writeHead(200, STREAM).write(SAID + BILL);
      setTimeout(() => response.end(), 30); // it leaves before
    });
    const stop = interceptCalls();
    const model = new ChatOpenAI({
      model: "gpt-4.1-mini",
      maxTokens: 600,
      streaming: true,
      streamUsage,
      apiKey: "none",
      maxRetries: 0,
      configuration: { baseURL: provider.url.replace("/chat/completions", "") },
    });
    await onBehalfOf(context, async () => {
      for (let call = 1; call <= 4; call += 1) {
        let text = "";
        for await (const chunk of await model.stream("hello")) text += chunk.text;
        expect(text).toBe("hi");
      }
      await gateway.close(context);
    });
    stop();
    provider.close();

    expect(await budget()).toEqual({ spent: 28, reserved: 0 });
  },
);

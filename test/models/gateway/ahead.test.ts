// A reservation that waits for its call never stands in the way of it, and not in that of others while there is room.
import { afterAll, beforeAll, expect, test } from "vitest";
import { atNode, onBehalfOf } from "../../../server/models/gateway/context.ts";
import { stopCounting } from "../../../server/models/tokens.ts";
import { testDatabase } from "../../support/database.ts";
import type { TestDatabase } from "../../support/database.ts";
import { answering, frameOf, openRig, said, STREAM } from "../../support/gateway.ts";
import type { Answering, GatewayRig } from "../../support/gateway.ts";

let scratch: TestDatabase;
let provider: Answering;
beforeAll(async () => {
  scratch = await testDatabase();
  const bill = frameOf({ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } });
  provider = await answering((_, response) =>
    response.writeHead(200, STREAM).end(`${said("hi", { finish_reason: "stop" })}${bill}data: [DONE]\n\n`),
  );
});
afterAll(async () => {
  provider.close();
  await scratch.close();
  await stopCounting();
});

const [SMALL, LARGE] = ["gpt-4.1-mini", "gpt-4.1"];

const reserve = ({ gateway, context }: GatewayRig, node: string, maxOutputTokens: number, model = SMALL) =>
  onBehalfOf(context, () =>
    atNode(node, () => gateway.reserve({ model, promptTokens: 8, maxOutputTokens }, context)),
  );

/** Of a prompt of 8 tokens. */
async function ask({ send }: GatewayRig, node: string, most: number, model = SMALL): Promise<number> {
  const messages = [{ role: "user", content: "hello" }];
  const body = { model, stream: true, max_tokens: most, messages };
  const response = await atNode(node, () => send(provider.url, body));
  await response.text();
  return response.status;
}

test("a call of which a little too little was reserved is made", async () => {
  const rig = await openRig(scratch.database, { tokens: 1000 });
  await reserve(rig, "a", 599);
  expect(await ask(rig, "a", 600)).toBe(200);
  expect([rig.context.ahead, await rig.budget()]).toEqual([[], { spent: 7, reserved: 0 }]);
});

test.each([
  ["in another node", "b", SMALL],
  ["before a route led elsewhere", "a", LARGE],
])("a call is made although what was reserved %s is too little", async (_, node, model) => {
  const rig = await openRig(scratch.database, { tokens: 1000 });
  await reserve(rig, "a", 500);
  expect(await ask(rig, node, 600, model)).toBe(200);
  expect([rig.context.ahead, await rig.budget()]).toEqual([[], { spent: 7, reserved: 0 }]);
});

test("what another node reserved stays while there is room, and where it is for another model", async () => {
  const rig = await openRig(scratch.database, { tokens: 2000 });
  await reserve(rig, "a", 500);
  await reserve(rig, "a", 400, LARGE);
  expect(await ask(rig, "b", 600)).toBe(200);
  expect(await rig.budget()).toEqual({ spent: 7, reserved: 916 });
  expect(await ask(rig, "b", 1200)).toBe(200);
  expect(await rig.budget()).toEqual({ spent: 14, reserved: 408 });
  expect(await ask(rig, "b", 1800)).toBe(402);
  expect(rig.context.ahead).toMatchObject([{ node: "a", model: LARGE }]);
});

test("a node uses what it reserved itself, and leaves what another one did to that one", async () => {
  const rig = await openRig(scratch.database, { tokens: 1000 });
  await reserve(rig, "a", 800);
  await reserve(rig, "b", 100);
  expect(await ask(rig, "b", 100)).toBe(200);
  expect(rig.context.ahead).toMatchObject([{ node: "a" }]);
  expect(await ask(rig, "a", 800)).toBe(200);
});

// Values are redacted wherever a text may stand in them, copied only as far as something was found, and never changed.
import { AIMessage, AIMessageChunk, HumanMessage, ToolMessage } from "@langchain/core/messages";
import { Send } from "@langchain/langgraph";
import { expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { dump, load } from "../../server/privacy/serde.ts";

const guard = openPrivacy({ mode: "redact", graphs: {}, rules: [], names: false }).of();
const mail = "ada@example.org";
const gone = "[REDACTED_EMAIL]";

const keep = (value: unknown): unknown => load(...dump(guard.value(value)));

test("a text is found in every kind of value that state can hold", () => {
  class Ticket {
    readonly by = mail;
  }
  const value = {
    plain: mail,
    list: [1, [mail]],
    map: new Map<unknown, unknown>([[mail, { of: mail }]]),
    set: new Set([mail]),
    error: new TypeError(`for ${mail}`),
    made: { toJSON: () => ({ by: mail }) },
    own: new Ticket(),
    sent: new Send("next", { to: mail }),
    [mail]: "a key",
  };
  expect(keep(value)).toEqual({
    plain: gone,
    list: [1, [gone]],
    map: new Map<unknown, unknown>([[gone, { of: gone }]]),
    set: new Set([gone]),
    error: expect.objectContaining({ name: "TypeError", message: `for ${gone}` }) as unknown,
    made: { by: gone },
    own: { by: gone },
    sent: expect.objectContaining({ node: "next", args: { to: gone } }) as unknown,
    [gone]: "a key",
  });
  expect(value.error.message).toBe(`for ${mail}`);
});

const tokens = (...all: string[]): object => ({
  logprobs: { content: all.map((token) => ({ token, logprob: -0.1 })), refusal: null },
});

test("tokens of an answer go where they say together what may not be kept", () => {
  const found = new AIMessage({ content: "x", response_metadata: tokens("ada", "@exam", "ple.org") });
  expect(guard.value(found).response_metadata).toEqual({ logprobs: null });
  const plain = new AIMessage({ content: "x", response_metadata: tokens("no", "thing") });
  expect(guard.value(plain)).toBe(plain);
  expect(guard.value({ logprobs: { tokens: ["ada", "@exam", "ple.org"] } })).toEqual({ logprobs: null });
  expect(guard.value({ logprobs: true })).toEqual({ logprobs: true });
});

const cut = (type: string, ...texts: string[]): { type: string }[] =>
  texts.map((text) => ({ type, [type]: text }));

test("what a model said is looked at as one text also where each piece of it stayed a block", () => {
  const call = { type: "functionCall", functionCall: { name: "send", args: { to: "nobody" } } };
  const thought = cut("thinking", "for ada", "@exam", "ple.org ", "now");
  Object.assign(thought.at(-1) ?? {}, { signature: "c2ln" });
  const content = [...thought, ...cut("text", "Write to a", "da@example.org"), call];
  const whole = [
    { type: "thinking", thinking: `for ${gone} now`, signature: "c2ln" },
    { type: "text", text: `Write to ${gone}` },
    call,
  ];
  expect(guard.value(new AIMessage({ content })).content).toEqual(whole);
  expect(guard.value(new AIMessageChunk({ content })).content).toEqual(whole);
  const found: string[] = [];
  const plain = guard.value([{ role: "assistant", content }], (kind) => found.push(kind));
  expect(plain).toEqual([{ role: "assistant", content: whole }]);
  expect(found).toEqual(["EMAIL", "EMAIL"]);
});

test("blocks that say together no more than each of them stay apart", () => {
  const plain = new AIMessage({ content: cut("text", "no", "thing") });
  expect(guard.value(plain)).toBe(plain);
  expect(guard.value(new AIMessage({ content: cut("text", "to ", mail, " now") })).content).toEqual(
    cut("text", "to ", gone, " now"),
  );
  // What others say came whole: the end of one block is no part of the next.
  for (const Said of [HumanMessage, ToolMessage]) {
    const said = new Said({ content: cut("text", "for", mail), tool_call_id: "call_1234" });
    expect(guard.value(said).content).toEqual(cut("text", "for", gone));
  }
});

test("names that become the same keep what stands under each of them", () => {
  const [one, two] = [mail, "grace@example.org"];
  expect(guard.value({ [one]: 1, [two]: 2, other: 3 })).toEqual({ other: 3, [gone]: 1, [`${gone}_2`]: 2 });
  expect(guard.value({ [one]: 1, [gone]: 2 })).toEqual({ [gone]: 2, [`${gone}_2`]: 1 });
  const map = new Map([
    [one, 1],
    [two, 2],
  ]);
  expect(guard.value(map)).toEqual(
    new Map([
      [gone, 1],
      [`${gone}_2`, 2],
    ]),
  );
  expect(guard.value(guard.value({ [one]: 1, [two]: 2 }))).toEqual({ [gone]: 1, [`${gone}_2`]: 2 });
});

test("thousands of names that become the same cost no more than others", () => {
  const many = Object.fromEntries(Array.from({ length: 20_000 }, (_, index) => [`a${index}@b.co`, index]));
  const start = process.cpuUsage();
  for (const value of [many, new Map(Object.entries(many))]) {
    const kept = guard.value(value);
    expect(kept instanceof Map ? kept.size : Object.keys(kept).length).toBe(20_000);
  }
  expect(process.cpuUsage(start).user).toBeLessThan(5_000_000);
  expect(guard.value(many)[`${gone}_20000`]).toBe(19_999);
});

test("what stands deeper than anybody looks is not kept", () => {
  let value: unknown = { of: mail };
  for (let depth = 0; depth < 600; depth += 1) value = { value };
  expect(JSON.stringify(guard.value(value))).not.toContain("ada@");
});

test("messages stay messages, with everything of them redacted", () => {
  const messages = [
    new HumanMessage({ id: "q-1", content: [{ type: "text", text: mail }] }),
    new AIMessage({
      id: "a-1",
      content: mail,
      tool_calls: [{ id: "call_1", name: "send", args: { to: [mail] } }],
      additional_kwargs: { reasoning_content: mail },
      response_metadata: { echoed: mail },
    }),
    new ToolMessage({ tool_call_id: "call_1", content: mail, artifact: { raw: mail } }),
  ];
  const kept = keep(messages) as typeof messages;
  expect(JSON.stringify(kept)).not.toContain("ada@");
  expect(kept.map((message) => message.constructor.name)).toEqual([
    "HumanMessage",
    "AIMessage",
    "ToolMessage",
  ]);
  expect(kept.map(({ id }) => id)).toEqual(["q-1", "a-1", undefined]);
  expect(AIMessage.isInstance(kept[1]) && kept[1].tool_calls).toEqual([
    { id: "call_1", name: "send", args: { to: [gone] } },
  ]);
  expect(messages[1]?.content).toBe(mail);
});

const hello = (): AIMessage =>
  new AIMessage({ id: "a-1", content: "Hello", additional_kwargs: { note: "no" } });

test("what a node sets on a message that was made of something else is looked at", () => {
  const [said, called, added, known] = [hello(), hello(), hello(), hello()];
  said.content = mail;
  called.tool_calls = [{ id: "call_1", name: "send", args: { to: mail } }];
  added.additional_kwargs = { note: mail };
  Object.assign(known.additional_kwargs, { mail });
  const given = [said, called, added, known];
  expect(given.map((message) => JSON.stringify(message.lc_kwargs).includes(mail))).toEqual(
    [false, false, false, true], // the last one's is the same object
  );
  for (const kept of keep(given) as AIMessage[]) {
    const text = JSON.stringify([kept.content, kept.tool_calls, kept.additional_kwargs]);
    expect(text).toContain(gone);
    expect(text).not.toContain("ada@");
  }
});

test("no block of an answer needs to hold anything by itself", () => {
  const content = [
    { type: "text", text: "Write to ada@exam" },
    { type: "text", text: "ple.org today" },
  ];
  const [kept] = keep([new AIMessage({ content })]) as AIMessage[];
  expect(kept?.content).toEqual([{ type: "text", text: `Write to ${gone} today` }]);
});

test("a name under which nothing stands is a text too", () => {
  expect(Object.keys(guard.value({ lc_kwargs: {}, [mail]: undefined }))).toEqual(["lc_kwargs", gone]);
});

test("what holds nothing is the same object", () => {
  const value = {
    messages: [new AIMessage("hello")],
    at: new Date(0),
    bytes: new Uint8Array([1]),
    of: /x/,
    n: 12,
  };
  expect(guard.value(value)).toBe(value);
});

test("a long number is a text, and becomes one when it is found", () => {
  expect(guard.value({ card: 4532015112830366, at: 1_732_570_000_000, many: 123_456_789_012 })).toEqual({
    card: "[REDACTED_CREDIT_CARD]",
    at: 1_732_570_000_000,
    many: 123_456_789_012,
  });
  expect(guard.value([4_532_015_112_830_366n])).toEqual(["[REDACTED_CREDIT_CARD]"]);
});

test("names that LangGraph and models make are left alone, and only where such names stand", () => {
  const id = "11111111-2222-4333-8444-155512345678";
  const named = { id, tool_call_id: "call_4155550123", run_id: id, parentId: `lc_run--${id}` };
  expect(guard.value(named)).toBe(named);
  expect(guard.value({ id: mail })).toEqual({ id: gone });
});

test("a graph that is off keeps everything", () => {
  const privacy = openPrivacy({ mode: "redact", graphs: { lab: "off" }, rules: [], names: false });
  const value = { of: mail };
  expect(privacy.of("lab").value(value)).toBe(value);
  expect(privacy.of("constructor").value(value)).toEqual({ of: gone });
  expect(privacy.of("lab").stream()).toBeUndefined();
});

test("what was found is told each time, also of a text that was seen before", () => {
  const long = `the address of the author of these lines is ${mail}`;
  const told = [1, 2].map(() => {
    const kinds: string[] = [];
    guard.value([long, long], (kind) => kinds.push(kind));
    return kinds;
  });
  expect(told).toEqual([
    ["EMAIL", "EMAIL"],
    ["EMAIL", "EMAIL"],
  ]);
});

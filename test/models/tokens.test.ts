import fc from "fast-check";
import { get_encoding } from "tiktoken";
import { afterAll, expect, test } from "vitest";
import { countWith } from "../../server/models/encoding.ts";
import { countChatTokens, countTokens, encodingOf, stopCounting } from "../../server/models/tokens.ts";
import { longestStall } from "../support/stall.ts";

const names = ["o200k_base", "cl100k_base"] as const;
const models = { o200k_base: "gpt-4.1-mini", cl100k_base: "gpt-4" };
const tiktoken = { o200k_base: get_encoding("o200k_base"), cl100k_base: get_encoding("cl100k_base") };
const oracle = (name: (typeof names)[number], text: string): number =>
  tiktoken[name].encode_ordinary(text).length;

const odd = [
  "",
  "\uFEFFbyte order mark \uFEFF\uFEFF inside",
  "next\u0085line \u0085\u0085 twice",
  "mongolian\u180Evowel \u180E separator",
  "line\u2028separator\u2029paragraph \u2028 ",
  "soft\u00ADhyphen \u00AD\u00AD",
  "ligatures ﬁ ﬂ ﬀ ﬃ Ĳ ǆ",
  "lone \uD800 high and \uDC00 low\uDFFF",
  "combining e\u0301\u0302\u0303 \u0301\u0301 n\u0303o",
  "dotted İstanbul İİ ı I",
  "full width １２３４５ and Arabic ٣٤٥٦ digits",
  "zero\u200Bwidth \u200B\u200C\u200D\u2060 spaces",
  "curly don’t it’s we’ve I’m they’LL 'ſ 'S",
  "runs\r\n\r\n\r\n of \r\n  \r\n\t\r\n crlf\n\n \n",
  "family 👩‍👩‍👧‍👦 flag 🏴󠁧󠁢󠁥󠁮󠁧󠁿 tone 👍🏽 heart ❤️‍🔥",
  "<|endoftext|> <|fim_prefix|> and <|endofprompt|> are text",
  "spaces    before    words and after   ",
  "\u00a0\u1680\u2000\u200a\u202f\u205f\u3000 exotic\u3000spaces",
];

afterAll(stopCounting);

test.each(names)("%s counts every odd string as tiktoken does", async (name) => {
  const counts = await Promise.all(odd.map(async (text) => countTokens(text, models[name])));
  expect(counts).toEqual(odd.map((text) => oracle(name, text)));
});

test.each(names)("%s counts any text as tiktoken does", (name) => {
  const anything = fc.oneof(
    fc.string({ unit: "binary", maxLength: 60 }),
    fc.string({ unit: "grapheme", maxLength: 60 }),
    fc.string({ unit: fc.constantFrom(...Array.from("aA1 \n\r\t'’.!/é漢\u0301\uD800")), maxLength: 200 }),
  );
  fc.assert(
    fc.property(anything, (text) => {
      expect(countWith(name, text)).toBe(oracle(name, text));
    }),
    { numRuns: 3000 },
  );
});

test.each(names)("%s counts every character of the first two planes as tiktoken does", (name) => {
  const texts = Array.from({ length: 0x20000 / 64 }, (_, block) => {
    const points = Array.from({ length: 64 }, (_unused, offset) => String.fromCodePoint(block * 64 + offset));
    return points.map((point) => `a${point}B 1${point}`).join(" ");
  });
  expect(texts.filter((text) => countWith(name, text) !== oracle(name, text))).toEqual([]);
});

test.each(names)("%s counts letters that are newer than tiktoken's Unicode as tiktoken does", (name) => {
  const firsts = [
    0x88f, 0x1acf, 0x1aeb, 0xa7f1, 0x10940, 0x11de9, 0x18d80, 0x1e6c0, 0x2b73a, 0x323b0, 0x33479,
  ];
  const texts = firsts.flatMap((point) =>
    ["(a", "[B", "-W", ")y", " z", "1", "/I"].flatMap((near) => {
      const one = String.fromCodePoint(point);
      return [one + near, near + one, `Word${one}s ${one}${one}${near}`];
    }),
  );
  expect(texts.filter((text) => countWith(name, text) !== oracle(name, text))).toEqual([]);
});

test.each(["a", "A", " ", "\n", "!", "漢", "é", "1"])(
  "a 300 KB run of %j, which takes minutes where pairs are searched for, is counted",
  async (one) => {
    const run = one.repeat(300_000 / Buffer.byteLength(one));
    expect(await countTokens(run, "gpt-4o")).toBeGreaterThan(0);
  },
);

test("counting never stalls the main loop, not even the first time or for a hostile text", async () => {
  await stopCounting();
  const { stallMs } = await longestStall(async () => {
    await countTokens("a first and cold count", "gpt-4.1");
    await countTokens("b".repeat(300_000), "gpt-4.1");
    await countTokens(" ".repeat(300_000), "gpt-4.1");
  });
  expect(stallMs).toBeLessThan(50);
});

test("a long hostile text does not delay the counting of short ones", async () => {
  await Promise.all([countTokens("warm ".repeat(20_000), "gpt-4o"), countTokens("warm", "gpt-4o")]);
  const order: string[] = [];
  const long = countTokens("c".repeat(2_000_000), "gpt-4o").then(() => order.push("long"));
  const short = countTokens("a short one", "gpt-4o").then(() => order.push("short"));
  await Promise.all([long, short]);
  expect(order).toEqual(["short", "long"]);
});

test("counting goes on after its threads were released", async () => {
  const before = await countTokens("the same text, twice", "gpt-4");
  await stopCounting();
  expect(await countTokens("the same text, twice", "gpt-4")).toBe(before);
});

test.each([
  ["gpt-4.1-mini", "o200k_base", false],
  ["gpt-5.1", "o200k_base", false],
  ["ft:gpt-4o-mini:org::id", "o200k_base", false],
  ["openai/gpt-oss-120b", "o200k_base", false],
  ["gpt-4-turbo", "cl100k_base", false],
  ["gpt-3.5-turbo", "cl100k_base", false],
  ["text-embedding-3-small", "cl100k_base", false],
  ["llama-3", "o200k_base", true],
])("the encoding of %s is %s (approximate: %s)", (model, encoding, approximate) => {
  expect(encodingOf(model)).toEqual({ encoding, approximate });
});

test("a chat prompt counts its contents, roles, names and framing", async () => {
  const messages = [
    { role: "system", content: "You are a helpful, pattern-following assistant.", name: "example_user" },
    { role: "user", content: "New synergies will help drive top-line growth." },
  ];
  const texts = messages.flatMap(({ role, content, name }) => [role, content, name ?? ""]);
  const bare = texts.reduce((sum, text) => sum + oracle("o200k_base", text), 0);
  expect(await countChatTokens(messages, "gpt-4o")).toBe(bare + 2 * 3 + 1 + 3);
});

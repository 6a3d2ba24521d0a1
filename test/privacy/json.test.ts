// JSON in which something is found stays JSON: arguments of calls are told as texts, and read again by whoever has them.
import fc from "fast-check";
import { expect, test } from "vitest";
import { redactText } from "../../server/privacy/redact.ts";

test.each([
  ['{"account":123456789}', '{"account":"[REDACTED_ID]"}'],
  ['{"a":1,"token":12345678901}', '{"a":1,"token":"[REDACTED_SECRET]"}'],
  ['{"a":{"b":{"c":{"password":1234567}}}}', '{"a":{"b":{"c":{"password":"[REDACTED_SECRET]"}}}}'],
  ['{"ssn": 536904399, "n": 1}', '{"ssn": "[REDACTED_SSN]", "n": 1}'],
  ['{"password":[123456789]}', '{"password":[123456789]}'],
  ["[4111111111111111]", '["[REDACTED_CREDIT_CARD]"]'],
  [
    String.raw`{"args":"{\"account\":123456789,\"n\":1}"}`,
    String.raw`{"args":"{\"account\":\"[REDACTED_ID]\",\"n\":1}"}`,
  ],
  [String.raw`{"to":"Hi,\nada@example.org"}`, String.raw`{"to":"Hi,\n[REDACTED_EMAIL]"}`],
  ["cards 4111111111111111, 4111111111111111", "cards [REDACTED_CREDIT_CARD], [REDACTED_CREDIT_CARD]"],
])("%s becomes %s", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

test.each([
  ["f(password=hunter222)", "f(password=[REDACTED_SECRET])"],
  ["(see f(password=hunter222)).", "(see f(password=[REDACTED_SECRET]))."],
  ["{a: [{token: hunter222}]}", "{a: [{token: [REDACTED_SECRET]}]}"],
  ["password=ab)cd(ef}g1", "password=[REDACTED_SECRET]"],
  ["password=abc}}def123 x", "password=[REDACTED_SECRET] x"],
])("the brackets that close behind %j stay", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

const key = fc.constantFrom(..."account,token,phone,ssn,card,line,number,password,id,n,to".split(","));
const leaf = fc.oneof(
  fc.constantFrom(4111111111111111, 536904399, 5551237788, 12345678901, 1234567),
  fc.integer({ min: -1000 }),
  fc.constantFrom("ada@example.org", "hunter2222", "Hi,\n555-123-4567", "\nada@example.org", "", 'a"b\\'),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    leaf,
    fc.array(tie("value"), { maxLength: 12 }),
    fc.dictionary(key, tie("value"), { maxKeys: 4 }),
  ),
}));

test("any JSON stays JSON, also inside of JSON", () => {
  const law = fc.property(value, fc.constantFrom(0, 2), (one, space) => {
    const text = JSON.stringify({ of: one }, null, space);
    expect(() => void JSON.parse(redactText(text))).not.toThrow();
    const outer = JSON.stringify({ args: text });
    const { args } = JSON.parse(redactText(outer)) as { args: string };
    expect(() => void JSON.parse(args)).not.toThrow();
  });
  fc.assert(law, { numRuns: 3000 });
});

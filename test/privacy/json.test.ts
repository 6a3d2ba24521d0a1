// JSON in which something is found stays JSON: arguments of calls are told as texts, and read again by whoever has them.
import fc from "fast-check";
import { expect, test } from "vitest";
import { Redactor, redactText } from "../../server/privacy/redact.ts";

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
  [String.raw`{"to":"\u003cada@example.org\u003e"}`, String.raw`{"to":"\u003c[REDACTED_EMAIL]\u003e"}`],
  ["cards 4111111111111111, 4111111111111111", "cards [REDACTED_CREDIT_CARD], [REDACTED_CREDIT_CARD]"],
])("%s becomes %s", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

test.each([
  "4111 1111 1111 1111",
  "536-90-4399",
  "DE89370400440532013000",
  "415-555-2671",
  "00:1B:44:11:3A:B7",
  "10.11.12.13",
  "2001:0db8:85a3:0000:0000:8a2e:0370:7334",
  "AKIAIOSFODNN7EXAMPLE",
  "sk-proj-abcdefghijklmnop1234",
  "Bearer abcdefghijklmnop123",
  "12 Old Mill Road",
  "tel: 5551234",
  "MRN: 3359254",
  "born on 4 July 1976",
  "EMP-37129",
])("%s is found behind a line break or tab that JSON writes as an escape", (found) => {
  for (const space of ["\n", "\r\n", "\t"]) {
    const text = JSON.stringify({ note: `call${space}${found}` });
    expect(redactText(text)).not.toContain(found.slice(-7));
    const inner = JSON.stringify({ args: text });
    expect(redactText(inner)).not.toContain(found.slice(-7));
    expect(() => void JSON.parse(redactText(inner))).not.toThrow();
  }
});

test("an own rule looks behind escapes too, and the letter n is no escape", () => {
  const own = [{ kind: "EMPLOYEE_ID", pattern: String.raw`\bE-\d{6}\b` }];
  const redactor = new Redactor({ own });
  expect(redactor.redact(String.raw`{"a":"by\nE-123456"}`)).toBe(
    String.raw`{"a":"by\n[REDACTED_EMPLOYEE_ID]"}`,
  );
  expect(redactor.redact(String.raw`byE-123456 n4111111111111111 \d4111111111111111`)).toBe(
    String.raw`byE-123456 n4111111111111111 \d4111111111111111`,
  );
});

test.each([
  String.raw`\bC-\d{6}\b|\bE-\d{6}\b`,
  String.raw`(?:\bC|\bE)-\d{6}`,
  String.raw`(?:\bE|F)-\d{6}`,
  String.raw`(\bE-\d{6})`,
  String.raw`(?:badge )?\bE-\d{6}\b`,
  String.raw`(?<!\w)E-\d{6}(?!\w)`,
  String.raw`(?<!\p{L}|-)E-\d{6}`,
  String.raw`C|(?<![a-z])E-\d{6}`,
])("%s looks behind escapes at each of its borders, whole and in pieces", (pattern) => {
  const redactor = new Redactor({ own: [{ kind: "EMPLOYEE_ID", pattern }] });
  for (const before of [String.raw`by\n`, String.raw`by\\t`, "?of=%20"]) {
    const text = `${before}E-123456`;
    expect(redactor.redact(text)).toBe(`${before}[REDACTED_EMPLOYEE_ID]`);
    expect(redactor.redact(`${before}xE-123456`)).toBe(`${before}xE-123456`);
    const stream = redactor.stream();
    const told = text.split("").map((piece) => stream.push(piece));
    expect(told.join("") + stream.push("", true)).toBe(`${before}[REDACTED_EMPLOYEE_ID]`);
  }
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
  fc.constantFrom(
    "ada@example.org",
    "hunter2222",
    "Hi,\n555-123-4567",
    "\nada@example.org",
    "",
    'a"b\\',
    "x\n536-90-4399\t4111111111111111",
  ),
);
const { value } = fc.letrec((tie) => ({
  value: fc.oneof(
    { maxDepth: 4 },
    leaf,
    fc.array(tie("value"), { maxLength: 12 }),
    fc.dictionary(key, tie("value"), { maxKeys: 4 }),
  ),
}));

test.each<[string, string | number]>([
  ["password", "hunter2222"],
  ["password", 'ab"cd\\efgh99'],
  ["password", "hunter\n22"],
  ["api_key", "k9k9k9k9k9k9"],
  ["token", 12345678901],
  ["account", 123456789],
  ["mrn", "3359254"],
  ["phone", "5551234"],
  ["dob", "1976-07-04"],
])("what %s says of %j holds in JSON that stands in JSON up to three times", (name, of) => {
  let text = JSON.stringify({ n: 1, [name]: of, to: "her" });
  for (let depth = 1; depth < 4; depth += 1) text = JSON.stringify({ args: text });
  for (let depth = 3; depth >= 0; depth -= 1) {
    let redacted = redactText(text);
    for (let at = 0; at < depth; at += 1) redacted = (JSON.parse(redacted) as { args: string }).args;
    const { [name]: found, ...others } = JSON.parse(redacted) as Record<string, unknown>;
    expect(found).toMatch(/^\[REDACTED_[A-Z]+\]$/);
    expect(others).toEqual({ n: 1, to: "her" });
    if (depth > 0) text = (JSON.parse(text) as { args: string }).args;
  }
});

test("any JSON stays JSON, also inside of JSON", () => {
  const law = fc.property(value, fc.constantFrom(0, 2), fc.nat(3), (one, space, depth) => {
    let text = JSON.stringify({ of: one }, null, space);
    for (let at = 0; at < depth; at += 1) text = JSON.stringify({ args: text });
    let redacted = redactText(text);
    for (let at = 0; at < depth; at += 1) redacted = (JSON.parse(redacted) as { args: string }).args;
    expect(() => void JSON.parse(redacted)).not.toThrow();
  });
  fc.assert(law, { numRuns: 3000 });
});

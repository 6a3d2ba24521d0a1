// What stands under a name that says what it is: as a value it is treated as it is in JSON, which streams tell.
import fc from "fast-check";
import { expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";

const guard = openPrivacy({ mode: "redact", graphs: {}, rules: [], names: false }).of();

test.each([
  [{ password: "swordfish!" }, "SECRET"],
  [{ dbPassword: 123456789 }, "SECRET"],
  [{ "x-api-key": "a8Kd92hsL0pQ" }, "SECRET"],
  [{ token: "a8Kd92hsL0pQ" }, "SECRET"],
  [{ ssn: "536904399" }, "SSN"],
  [{ ssn: 536904399 }, "SSN"],
  [{ social_security_number: 536904399n }, "SSN"],
  [{ dateOfBirth: "1980-01-31" }, "DOB"],
  [{ user_dob: "01/31/1980" }, "DOB"],
  [{ card_number: 4000000000000001 }, "CREDIT_CARD"],
  [{ phone: 5551237788 }, "PHONE"],
  [{ homePhone: "5551234" }, "PHONE"],
  [{ userPassport: "AB1234567" }, "ID"],
  [{ iban: "gb50mvfc40013122345678" }, "IBAN"],
])("%o is no text without its name", (value, kind) => {
  const [key = ""] = Object.keys(value);
  expect(guard.value(value)).toEqual({ [key]: `[REDACTED_${kind}]` });
  expect(guard.value(guard.value(value))).toEqual({ [key]: `[REDACTED_${kind}]` });
  expect(guard.value(new Map(Object.entries(value)))).toEqual(new Map([[key, `[REDACTED_${kind}]`]]));
});

test("the items of a list stand under its name, what has names of its own does not", () => {
  const value = { phones: ["5551237788", [5551234], { line: "5551234" }], passwords: new Set(["swordfish"]) };
  expect(guard.value(value)).toEqual({
    phones: ["[REDACTED_PHONE]", ["[REDACTED_PHONE]"], { line: "5551234" }],
    passwords: new Set(["[REDACTED_SECRET]"]),
  });
});

test("a label changes nothing of what holds nothing, and is reported once", () => {
  const kinds: string[] = [];
  expect(guard.value({ phone: "unknown", birth: "ada@example.org" }, (kind) => kinds.push(kind))).toEqual({
    phone: "unknown",
    birth: "[REDACTED_EMAIL]",
  });
  expect(kinds).toEqual(["EMAIL"]);
});

test("names that say nothing, and ids, leave what stands under them alone", () => {
  const value = {
    next_token: "abcdef123",
    pageToken: "abcdef123",
    token_type: "bearer-1234",
    token: " something",
    max_tokens: 500,
    usage_metadata: { input_tokens: 123456, output_tokens: 1234567, total_tokens: 1234567 },
    usage: { prompt_tokens: 123456, completion_tokens: 123456 },
    prompt_cache_key: "user-12345678",
    tool_call_id: "call_12345678",
    run_id: "11111111-2222-4333-8444-155512345678",
    customer_id: 12345678,
    number: 1234567,
    line: 5551234,
    text: "1234567",
    name: "deploy-2024-prod",
    password: null,
    secret: true,
    mobile: { phone_model: "5551234" },
  };
  expect(guard.value(value)).toBe(value);
});

const values: Record<string, fc.Arbitrary<string | number>> = {
  password: fc.stringMatching(/^[a-zA-Z0-9!#$%&*+@^_-]{6,20}$/),
  client_secret: fc.stringMatching(/^[a-zA-Z0-9_-]{8,20}$/),
  apiKey: fc.stringMatching(/^[a-zA-Z0-9]{12,30}$/),
  access_token: fc.integer({ min: 1e10, max: 1e15 }),
  ssn: fc.constantFrom("536904399", 536904399, "536-90-4399"),
  dob: fc.constantFrom("1980-01-31", "31.1.1980", "4 July 1976", "not known"),
  card: fc.constantFrom("4000-0000-0000-0001", 4111111111111111, "4111 1111 1111 1111", 12),
  phone: fc.constantFrom("5551237788", 5551237788, "555-1234", "+49 30 1234567", "none"),
  mrn: fc.constantFrom("A1234567", 12345678, "n/a"),
  passport_number: fc.constantFrom("AB1234567", 123456789),
  iban: fc.constantFrom("gb50mvfc40013122345678", "DE89 3704 0044 0532 0130 00"),
  note: fc.constantFrom("nothing", "to ada@example.org", 12),
};

// A label reaches into the next field of a text: it may name its kind, not whether it is found.
const withoutKinds = (text: string): string => text.replaceAll(/\[REDACTED_[A-Z_]+\]/g, "[…]");

test("a value and its JSON agree on what is taken out", () => {
  const fields = Object.entries(values).map(([key, value]) => value.map((one) => [key, one] as const));
  const some = fc.uniqueArray(fc.oneof(...fields), { selector: ([key]) => key, minLength: 1, maxLength: 6 });
  const law = fc.property(some, (entries) => {
    const value: unknown = Object.fromEntries(entries);
    const asValue = withoutKinds(JSON.stringify(guard.value(value)));
    expect(withoutKinds(guard.text(JSON.stringify(value)))).toBe(asValue);
  });
  fc.assert(law, { numRuns: 2000 });
});

// What is sealed opens in its own place, under its own key, and nowhere else.
import { createSecretKey, randomBytes, randomUUID } from "node:crypto";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigInvalid, DataKeyUnusable, SealedValueInvalid } from "../../server/errors.ts";
import { KeyRing, newKeyLine } from "../../server/privacy/key-ring.ts";
import {
  LEAST_BYTES,
  fromText,
  isSealedText,
  keyIdOf,
  seal,
  toText,
  unseal,
} from "../../server/privacy/seal.ts";
import type { DataKey, Place } from "../../server/privacy/seal.ts";

const newKey = (id: string = randomUUID()): DataKey => ({ id, secret: createSecretKey(randomBytes(32)) });
const key = newKey();
const place: Place = ["runs", "kwargs", "3f0e"];

test("any value comes back as it was, also one that was compressed", () => {
  const sizes = fc.oneof(
    fc.uint8Array({ maxLength: 200 }),
    fc.uint8Array({ minLength: 1000, maxLength: 5000 }),
  );
  fc.assert(
    fc.property(sizes, (value) => {
      expect(unseal(key, place, seal(key, place, value))).toEqual(Buffer.from(value));
    }),
  );
});

test("nothing of a value can be read from what is sealed, nor whether two values are equal", () => {
  const value = Buffer.from("the plain text ".repeat(100));
  const [one, other] = [seal(key, place, value), seal(key, place, value)];
  expect(one.includes("plain")).toBe(false);
  expect(one.equals(other)).toBe(false);
  expect(one.length).toBeLessThan(value.length); // compressed first: afterwards nothing is made smaller
});

test.each(["short", "long ".repeat(500)])("a change of any bit of any byte is refused (%#)", (text) => {
  const sealed = seal(key, place, Buffer.from(text));
  for (let at = 0; at < sealed.length; at += 1) {
    for (const bit of [1, 128]) {
      const changed = Buffer.from(sealed);
      changed.writeUInt8(changed.readUInt8(at) ^ bit, at);
      expect(() => unseal(key, place, changed)).toThrow(SealedValueInvalid);
    }
  }
});

test("what was cut, or got more at its end, is refused", () => {
  const sealed = seal(key, place, Buffer.from("value"));
  for (let length = 0; length < sealed.length; length += 1)
    expect(() => unseal(key, place, sealed.subarray(0, length))).toThrow(SealedValueInvalid);
  expect(() => unseal(key, place, Buffer.concat([sealed, Buffer.from([0])]))).toThrow(SealedValueInvalid);
});

test("a value opens in its own place only, however the names of places are cut", () => {
  const sealed = seal(key, ["t", "c", "ab", "c"], Buffer.from("value"));
  const others: Place[] = [
    ["t", "c", "a", "bc"],
    ["t", "c", "abc"],
    ["t", "c", "ab", "c", ""],
    ["u", "c", "ab", "c"],
  ];
  for (const other of others) expect(() => unseal(key, other, sealed)).toThrow(/another place/);
});

test("a value does not open under another key, nor under one that has its id", () => {
  const sealed = seal(key, place, Buffer.from("value"));
  expect(keyIdOf(place, sealed)).toBe(key.id);
  for (const other of [newKey(), newKey(key.id)])
    expect(() => unseal(other, place, sealed)).toThrow(SealedValueInvalid);
});

test("what was never sealed is refused by name, and its content is not shown", () => {
  const plain = Buffer.from('{"secret":"value"} '.repeat(10));
  const error = [plain, Buffer.alloc(0), Buffer.alloc(LEAST_BYTES)].map((value) => {
    try {
      return unseal(key, place, value).toString();
    } catch (thrown) {
      return String(thrown);
    }
  });
  for (const text of error) expect(text).toMatch(/runs\.kwargs of 3f0e is not sealed/);
  expect(() => fromText(place, "plain")).toThrow(SealedValueInvalid);
});

test("a text has one spelling: what decodes to the same bytes is refused", () => {
  const text = toText(seal(key, place, Buffer.from("value")));
  expect(isSealedText(text)).toBe(true);
  expect(fromText(place, text)).toHaveLength(LEAST_BYTES + 5);
  for (const other of [`${text} `, `~ ${text.slice(1)}`, text.replace(/=*$/, "==="), text.slice(1)])
    expect(() => fromText(place, other)).toThrow(SealedValueInvalid);
});

describe("a ring of keys", () => {
  const [first, second] = [newKeyLine("first"), newKeyLine("second")];
  const secret = randomBytes(32);

  test("wraps with its first key, and opens what each of its keys wrapped", () => {
    const wrapped = new KeyRing(first).wrap(secret, ["a"]);
    const ring = new KeyRing(`# in use\n${second}\n\n  ${first}\n`);
    expect(ring.current).toBe("second");
    expect(ring.names).toEqual(["second", "first"]);
    expect(ring.unwrap("first", wrapped, ["a"])).toEqual(secret);
  });

  test("opens a key for what it was wrapped for only, and not when it was altered or cut", () => {
    const ring = new KeyRing(first);
    const wrapped = ring.wrap(secret, ["a"]);
    expect(() => ring.unwrap("first", wrapped, ["b"])).toThrow(DataKeyUnusable);
    for (let at = 0; at < wrapped.length; at += 1) {
      const changed = Buffer.from(wrapped);
      changed.writeUInt8(changed.readUInt8(at) ^ 1, at);
      expect(() => ring.unwrap("first", changed, ["a"])).toThrow(DataKeyUnusable);
      expect(() => ring.unwrap("first", wrapped.subarray(0, at), ["a"])).toThrow(DataKeyUnusable);
    }
  });

  test("names the key that it lacks, and not what it holds", () => {
    const wrapped = new KeyRing(first).wrap(secret, []);
    expect(() => new KeyRing(second).unwrap("first", wrapped, [])).toThrow(/does not hold the key first/);
    const impostor = new KeyRing(newKeyLine("first"));
    expect(() => impostor.unwrap("first", wrapped, [])).toThrow(/another key has this name/);
  });

  test.each([
    ["", /holds no key/],
    ["# nothing", /holds no key/],
    ["first:c2hvcnQ=", /line 1, is no key/],
    [`${first}\nsecond`, /line 2, is no key/],
    [`${first}\n${first}`, /names the key first twice/],
    [first.replace(":", " "), /line 1/],
  ])("that is none is refused without showing it: %#", (text, message) => {
    expect(() => new KeyRing(text)).toThrow(ConfigInvalid);
    expect(() => new KeyRing(text)).toThrow(message);
    const shown = first.slice(6, 30);
    expect(() => new KeyRing(text)).not.toThrow(new RegExp(shown.replaceAll("+", "\\+")));
  });
});

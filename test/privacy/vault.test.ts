// Tokens: the same for the same value of a thread, of no use without its key, and whole however a text is cut.
import { createSecretKey, randomBytes, randomUUID } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { Redactor } from "../../server/privacy/redact.ts";
import type { DataKey } from "../../server/privacy/seal.ts";
import { TOKEN, Vault } from "../../server/privacy/vault.ts";
import { taintsOfEachKind } from "../support/taint.ts";

const newKey = (): DataKey => ({ id: randomUUID(), secret: createSecretKey(randomBytes(32)) });
const key = newKey();
const vaultOf = (of = key): Vault => new Vault(of, "ada");
const redactor = new Redactor({ names: true });
const whole = (text: string, vault = vaultOf()): string => redactor.tokenising(vault).push(text, true);

test("a value has one token on a thread, for all who use it, and another on every other thread", () => {
  const token = vaultOf().token("EMAIL", "ada@example.org");
  expect(token).toMatch(/^\[EMAIL:[a-z]{16}\]$/);
  expect(new Vault(key, "grace").token("EMAIL", "Ada@Example.org")).toBe(token);
  expect(vaultOf().token("EMAIL", "adb@example.org")).not.toBe(token);
  expect(vaultOf().token("PHONE", "ada@example.org")).not.toBe(token);
  expect(vaultOf(newKey()).token("EMAIL", "ada@example.org")).not.toBe(token);
});

test("what is new is handed out once, with who gave it; secrets never are", () => {
  const vault = vaultOf();
  const text = redactor.tokenising(vault).push("a@b.org, a@b.org and password=hunter2hunter2", true);
  expect(vault.hasNew).toBe(true);
  expect(vault.takeNew()).toEqual([
    { token: text.match(TOKEN)?.[0], kind: "EMAIL", value: "a@b.org", identity: "ada" },
  ]);
  expect(vault.hasNew).toBe(false);
  expect(text).toContain("password=[REDACTED_SECRET]");
});

test("no part of a value is in its token's text, for values of each kind", () => {
  for (const { value, core } of taintsOfEachKind(20)) expect(whole(`It is ${value}.`)).not.toContain(core);
});

test("tokens that are there stay, also when the text is looked at again with or without a vault", () => {
  for (let round = 0; round < 300; round += 1) {
    const text = taintsOfEachKind()
      .map(({ value }) => value)
      .join(" and, ");
    const once = whole(text, vaultOf(newKey()));
    expect(whole(once)).toBe(once);
    expect(redactor.redact(once)).toBe(once);
  }
});

test.each(["TOKEN", "API_KEY", "ACCESS_TOKEN", "PASSWORD", "PHONE", "CASE_ID"])(
  "what an own rule of the kind %s finds is never told in clear, and what stands for it stays",
  (kind) => {
    const own = new Redactor({ own: [{ kind, pattern: String.raw`tk_\d{6}` }] });
    const found: string[] = [];
    const vault = vaultOf();
    const told = (text: string): string => own.tokenising(vault, (one) => found.push(one)).push(text, true);
    const isKept = ["PHONE", "CASE_ID"].includes(kind);
    for (const [before, after] of [
      ["a ", " b"],
      ["(", ")x b"],
      ['{"a":"', '"}'],
      ["", "xyz"],
    ]) {
      const once = told(`${before}tk_123456${after}`);
      expect(once).not.toContain("123456");
      expect(once.replace(TOKEN, `[REDACTED_${kind}]`)).toBe(`${before}[REDACTED_${kind}]${after}`);
      expect(once.match(TOKEN) !== null).toBe(isKept);
      expect([told(once), own.redact(once)]).toEqual([once, once]);
    }
    expect(found).toEqual([kind, kind, kind, kind]);
    expect(vault.hasNew).toBe(isKept);
  },
);

test("what hangs together with a token is not told with it", () => {
  const own = new Redactor({ own: [{ kind: "CASE", pattern: String.raw`[a-z]\] case \d{4}` }] });
  const token = vaultOf().token("EMAIL", "ada@example.org");
  expect(own.tokenising(vaultOf()).push(`see ${token} case 1234.`, true)).toBe("see [REDACTED].");
});

test("a text in pieces becomes what it becomes whole, tokens and values cut anywhere", () => {
  const values = taintsOfEachKind(3).map(({ value }) => value);
  const tokens = values.map((value) => whole(value, vaultOf(newKey())));
  const part = fc.oneof(
    fc.constantFrom(...values, ...tokens, "[", "[EMAIL:", "]", " is ", ": "),
    fc.string({ maxLength: 6 }),
  );
  const text = fc.array(part, { maxLength: 12 }).map((parts) => parts.join(" "));
  fc.assert(
    fc.property(text, fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1 }), (given, sizes) => {
      const stream = redactor.tokenising(vaultOf());
      let [told, at] = ["", 0];
      for (let index = 0; at < given.length; index += 1) {
        const size = sizes[index % sizes.length] ?? 1;
        const piece = stream.push(given.slice(at, at + size));
        // A token is never told in two pieces: what a reader is shown is put in piece by piece.
        expect(piece.replaceAll(TOKEN, "")).not.toMatch(/\[[A-Z_]{2,24}:[a-z]{1,16}$/);
        told += piece;
        at += size;
      }
      expect(told + stream.push("", true)).toBe(whole(given));
    }),
    { numRuns: 2000 },
  );
});

test("a graph that does not tokenise, or a thread without a key, is guarded as before", () => {
  const privacy = openPrivacy({
    mode: "redact",
    graphs: { apart: "tokenise", lab: "off" },
    names: false,
    rules: [],
  });
  const told = (graph: string, vault: Vault | undefined): string =>
    privacy.onThread(graph, () => vault).guard.text("a@b.org");
  expect(told("apart", vaultOf())).toMatch(TOKEN);
  expect(told("apart", undefined)).toBe("[REDACTED_EMAIL]");
  expect(told("other", vaultOf())).toBe("[REDACTED_EMAIL]");
  expect(told("lab", vaultOf())).toBe("a@b.org");
  expect(privacy.of("apart").text("a@b.org")).toBe("[REDACTED_EMAIL]");
  expect([privacy.tokenises, privacy.of("apart").mode]).toEqual([true, "tokenise"]);
});

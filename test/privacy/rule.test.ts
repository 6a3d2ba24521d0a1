// A rule that cannot be followed in a stream is refused, with its name and the reason.
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { ConfigInvalid } from "../../server/errors.ts";
import { Redactor } from "../../server/privacy/redact.ts";

const withRule = (pattern: string, more: object = {}): Redactor =>
  new Redactor({ own: [{ kind: "BADGE", pattern, ...more }] });

test.each([
  ["a*", "unbounded repetition *"],
  ["ab+", "unbounded repetition +"],
  ["a{3,}", "unbounded repetition {3,}"],
  ["(?:ab)+", "unbounded repetition +"],
  ["^a", "anchor ^"],
  ["a$", "anchor $"],
  ["a|$", "anchor $"],
  [String.raw`(a)\1`, "back-reference"],
  [String.raw`(?<n>a)\k<n>`, "named group"],
  ["(?<n>a)", "named group"],
  ["(?i:a)", "modifier"],
  ["a(?<!b)c", "lookbehind that is not at its start"],
  ["(?:a(?<=b))c", "lookbehind that is not at its start"],
  ["(?=(?<!b)c)d", "lookbehind that is not at its start"],
  ["(?<!b{41})a", "lookbehind of more than 40 characters"],
  ["(?<!b*)a", "unbounded repetition *"],
  ["(?!b+)a", "unbounded repetition +"],
  ["(?:a{1,9}){1,9}b", "repetition of a repetition that no character sets apart"],
  ["(?:(?:a{1,9})){1,9}b", "repetition of a repetition that no character sets apart"],
  [String.raw`(?:\w{1,9} ?){1,9}x`, "repetition of a repetition that no character sets apart"],
  ["(?:[a-f]{1,5}[d-z]{1,5}){1,9}", "repetition of a repetition that no character sets apart"],
  ["[a-z]{1,300}[a-z]{1,300}[a-z]{1,300}!", "can share a text in 27000000 ways"],
  ["[a-z]{1,300}(?:x|[a-z]{1,300}!)", "can share a text in 90000 ways"],
  [String.raw`[A-Za-z]{1,40}[ -]?[A-Za-z]{1,40}[ -]?[A-Za-z]{1,40}, \d{5}`, "can share a text in 64000 ways"],
  ["(?:[A-Za-z]{1,40} ?){1,3}, 1", "ways; 10000 is the limit"],
  ["(?=[a-z]{1,300}[a-z]{1,300}!)a", "can share a text in 90000 ways"],
  ["[а-я]{1,40}[а-я]{1,40}[а-я]{1,40}!", "can share a text in 64000 ways"],
  ["[α-λ]{1,300}[κ-ω]{1,300}!", "can share a text in 90000 ways"],
  [String.raw`\u0430{1,300}[\u{430}-\u{44f}]{1,300}!`, "can share a text in 90000 ways"],
  [String.raw`\p{L}{1,300}\p{Script=Han}{1,300}!`, "can share a text in 90000 ways"],
  ["(?:[а-я]{1,40}[в-ю]?){1,9}!", "a repetition of a repetition that no character sets apart"],
  ["a{4001}", "4001 characters long"],
  ["(?:a{100}b){100}", "10100 characters long"],
  ["a(?=b{4000})", "4001 characters long"],
  [String.raw`\b`, "can match nothing"],
  ["", "can match nothing"],
  ["(a", "group without an end"],
  ["a)", "parenthesis too many"],
  ["?a", "repetition of nothing"],
  ["a{2}{3}", "repetition of nothing"],
  ["[b-a]", "no regular expression"],
  [String.raw`\p{Nonsense}`, "no regular expression"],
])("%j is refused", (pattern, reason) => {
  expect(() => withRule(pattern)).toThrow(ConfigInvalid);
  expect(() => withRule(pattern)).toThrow(/^The redaction rule BADGE /);
  expect(() => withRule(pattern)).toThrow(reason);
});

test.each([
  String.raw`\bE-\d{6}\b`,
  String.raw`[\w.]{1,64}@[\w.]{1,253}\.\w{2,24}`,
  String.raw`\d{1,20}[-/]?\d{1,20}[-/]?\d{1,20}X`,
  String.raw`(?:\p{Lu}\p{L}{1,30} ){1,3}(?:GmbH|AG|KG)`,
  "case [A-Za-z]{1,40} [A-Za-z]{1,40} [A-Za-z]{1,40}, 1",
])("%s is bounded, and its repetitions are set apart", (pattern) => {
  expect(() => withRule(pattern)).not.toThrow();
});

test.each([
  [String.raw`(?:.{1,9}\n){1,9}x`, "s", "no character sets apart"],
  ["(?:[a-z]{1,9}A){1,9}x", "i", "no character sets apart"],
  [String.raw`.{1,300}\n.{1,300}!`, "s", "can share a text in"],
  ["[a-z]{1,300}A[a-z]{1,300}!", "i", "can share a text in"],
])(
  "%j is refused with the flag %s only, which makes more of its characters common",
  (pattern, flags, reason) => {
    expect(() => withRule(pattern)).not.toThrow();
    expect(() => withRule(pattern, { flags })).toThrow(reason);
  },
);

test.each(["g", "y", "u", "v", "m", "i s"])("the flags %j are refused", (flags) => {
  expect(() => withRule("a", { flags })).toThrow("only i and s are allowed");
});

test.each(["", "badge", "A-B", "A".repeat(25), "1A"])("the kind %j is refused", (kind) => {
  expect(() => withRule("a", { kind })).toThrow("needs a kind of 1 to 24 capital letters");
});

test.each([
  ["a{2}b?", "aab", "[REDACTED_BADGE]"],
  ["a{1,3}?b", "xaab", "x[REDACTED_BADGE]"],
  ["(?<=x)a(?!c)", "xab xac", "x[REDACTED_BADGE]b xac"],
  [String.raw`[\]*+$^]{2}`, "a]*", "a[REDACTED_BADGE]"],
  [String.raw`\*\+\$\(`, "*+$(", "[REDACTED_BADGE]"],
  [String.raw`\u0041\x42\u{43}`, "ABC", "[REDACTED_BADGE]"],
  ["a.c", "abc", "[REDACTED_BADGE]"],
  ["(?:a|bc|)d", "bcd d", "[REDACTED_BADGE] [REDACTED_BADGE]"],
  [String.raw`(?:\p{Lu}\p{L}{1,9} ){1,3}KG`, "Emil Sohn KG", "[REDACTED_BADGE]"],
  ["a(b)?c", "abc ac", "[REDACTED_BADGE] [REDACTED_BADGE]"],
  [String.raw`é\d{3}`, "dé123", "d[REDACTED_BADGE]"],
  [String.raw`社員番号\d{3}`, "(社員番号123)", "([REDACTED_BADGE])"],
  [String.raw`(?:[а-я]{4}|😀)№\d{3}`, "дело№123 😀№123", "[REDACTED_BADGE] [REDACTED_BADGE]"],
])("%j finds its part of %j", (pattern, text, redacted) => {
  expect(withRule(pattern).redact(text)).toBe(redacted);
});

const R = String.raw;

test.each([
  [R`社員番号：\d{3}`, "社員番号：123", "社員番号:123"],
  [R`№ \d{2}–\d{2}（[Ａ-Ｃ]）`, "№ 12–34（Ｂ）", "№\u00a012-34(B)"],
  [R`[٠-٩]{4}`, "٠١٢٣", "0123"],
  [R`[\u00a0_]n[:\]：]\d{3}`, "\u00a0n：123", " n:123"],
  ["کارت\u200cنو \\d{3}", "کارت\u200cنو 123", "کارتنو 123"],
  ["❤\ufe0f?\\d{3}", "❤\ufe0f123", "❤123"],
  [R`\ud83d\ude00[\ud83d\ude00\]]\d{3}`, "😀😀123", R`😀]123`],
  [R`[^：]x\u{ff1a}\d`, "ax：1", "bx:1"],
])("%s is found as it is written, and in plain characters", (pattern, written, plain) => {
  const redactor = withRule(pattern);
  for (const text of [`a ${written} b`, `a ${plain} b`]) {
    expect(redactor.redact(text)).toMatch(/^a ?\[REDACTED_BADGE\] b$/);
    const stream = redactor.stream();
    const told = text.split("").map((piece) => stream.push(piece));
    expect(told.join("") + stream.push("", true)).toBe(redactor.redact(text));
  }
});

test("any text that an operator writes as a rule is found, with all that rules read otherwise", () => {
  const unit = fc.constantFrom(
    ...Array.from(
      "ab1é社😀\u00a0\u202f\u2011–—−１９ＡＺｚ（）＠：｛［＼＊\u3000\u061c\u034f\ufe0f\u200b\ufe52٣\u{1d7d3}",
    ),
  );
  const text = fc.array(unit, { maxLength: 8 }).map((all) => `x${all.join("")}#`);
  const law = fc.property(text, fc.constantFrom("", "i"), (one, flags) => {
    expect(withRule(one, { flags }).redact(one)).toMatch(/^\[REDACTED_BADGE\]$/);
  });
  fc.assert(law, { numRuns: 300 });
});

test.each([2, -1, 0.5])("the group %j of a rule that has one is refused", (group) => {
  expect(() => withRule("a(b)", { group })).toThrow(`The redaction rule BADGE has no group ${group}.`);
});

test("a group that took no part is no finding", () => {
  expect(withRule("a(b)?c", { group: 1 }).redact("ac abc")).toBe("ac a[REDACTED_BADGE]c");
});

test("a rule that matches nothing but an empty text finds nothing", () => {
  expect(withRule("a?").redact("ba")).toBe("b[REDACTED_BADGE]");
});

describe("in JSON, an own rule finds what it finds in the text", () => {
  const patterns = [
    String.raw`K:\s{0,3}\d{4}`,
    String.raw`[a-z]\n\d{4}`,
    String.raw`[a-z][\t;]\d{4}`,
    String.raw`[a-z]\d{4}`,
    String.raw`\b\d{4}\b`,
    String.raw`\d{4}(?!\S)`,
    String.raw`(?<!\S)\d{4}(?=\s)`,
    String.raw`K[^\n]{1,5}1`,
    String.raw`K[^\t]{1,5}1`,
    String.raw`\s\d{4}`,
    "K.{1,5}1",
    "[^x]1{2}",
  ];
  const word = fc.constantFrom(
    "K:",
    "K",
    "x",
    "n",
    "1111",
    "1",
    " ",
    "\n",
    "\n\n",
    "\t",
    "\r\n",
    "x\n1111",
    "x;1111",
    "K: 1111",
    "K:\n\n1111",
    "é",
  );
  const texts = fc.array(word, { maxLength: 12 }).map((words) => ` ${words.join("")} `);
  const insideOut = (text: string, depth: number): string =>
    depth === 0 ? text : insideOut((JSON.parse(text) as { a: string }).a, depth - 1);
  const wrapped = (text: string, depth: number): string =>
    depth === 0 ? text : wrapped(JSON.stringify({ a: text }), depth - 1);

  test.each(patterns)("%s", (pattern) => {
    const redactor = withRule(pattern);
    let found = 0;
    const law = fc.property(
      texts,
      fc.integer({ min: 1, max: 3 }),
      fc.array(fc.nat(200)),
      (text, depth, cuts) => {
        const whole = redactor.redact(text, () => (found += 1));
        const json = wrapped(text, depth);
        const places = [0, ...cuts.filter((cut) => cut < json.length).toSorted((a, b) => a - b), json.length];
        const stream = redactor.stream();
        const told = places.map((place, index) => stream.push(json.slice(place, places[index + 1]))).join("");
        expect(insideOut(told + stream.push("", true), depth)).toBe(whole);
      },
    );
    fc.assert(law, { numRuns: 400 });
    expect(found).toBeGreaterThan(0); // a law that never came to a find would hold for nothing
  });

  test.each([
    [
      String.raw`"\d{4}`,
      String.raw`{"a":"{\"b\":\"1111\"}"}`,
      String.raw`{"a":"{\"b\":\"[REDACTED_BADGE]\"}"}`,
    ],
    [
      String.raw`\d{4}.`,
      String.raw`{"a":"{\"b\":\"1111\"}"}`,
      String.raw`{"a":"{\"b\":\"[REDACTED_BADGE]\"}"}`,
    ],
    [String.raw`\d{4}\W`, String.raw`{"a":"C:1111\\x"}`, String.raw`{"a":"C:[REDACTED_BADGE]\\x"}`],
    [String.raw`\d{4}`, String.raw`{"a":"C:\\1111\\x"}`, String.raw`{"a":"C:\\[REDACTED_BADGE]\\x"}`],
  ])("what %s takes of an escape stays whole", (pattern, json, redacted) => {
    expect(withRule(pattern).redact(json)).toBe(redacted);
  });
});

// A text told in pieces is told as if it had come whole, wherever it is cut.
import fc from "fast-check";
import { expect, test } from "vitest";
import { Redactor } from "../../server/privacy/redact.ts";
import type { Own } from "../../server/privacy/redact.ts";
import { redactionStream } from "../../server/privacy/redact-stream.ts";
import { structured } from "../../server/privacy/rules/patterns.ts";
import { beginningsOf } from "../../server/privacy/rules/prefix.ts";
import { compileRule } from "../../server/privacy/rules/rule.ts";

const redactor = new Redactor({ names: true });

/** The text told in pieces that end at `cuts`. */
function told(text: string, cuts: readonly number[], by: Pick<Redactor, "stream"> = redactor): string {
  const stream = by.stream();
  let from = 0;
  let all = "";
  for (const cut of cuts) {
    all += stream.push(text.slice(from, cut));
    from = cut;
  }
  return all + stream.push(text.slice(from), true);
}

const DENSE = [
  "Hi Anna Smith, write to ada@example.org or call +44 20 7946 0958 now.",
  "card 4111 1111 1111 1111 12/27, IBAN GB82 WEST 1234 5698 7654 32 is mine, ssn 123-45-6789",
  "password: hunter2222, token=Bearer abcdefghijklmnopqrstuv12 and http://u:secret@host/x",
  "a -----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB\n-----END RSA PRIVATE KEY----- b -----BEGIN PRIVATE KEY-----\nMII",
  "from 10.0.0.1 to fe80::1:2 at 00:1B:44:11:3A:B7, born on 4 July 1976, 455 6186 office",
  "lives at 12 Old Mill Road, Apt 4, Springfield, IL 62701. MRN: 3359254",
  "4\u200b111\u2060 1111 1111 1111\u200d x\u200b a\ufeff@b.co\u202e and 👩\u200d👩\u200d👧",
  "😀a@b.co😀123-45-6789😀 Mr. 😀 𝒜𝒷@𝒸.com",
  "4111\u00a01111\u20111111\u202f1111, ada\uff20\u200bexample.org\u00a0\u00a0\ufe0f\u2013 \uff15\uff13\uff16-\u061c90–4399\u3000x",
  '{"a":[{"token":12345678901}],"account":123456789,"phones":[5551237788, 4111111111111111,4111111111111111]}',
  String.raw`{"args":"{\"to\":\"Hi,\nada@example.org\",\"n\":[\n  4111111111111111\n],\"password\":12345678\n}"}`,
  "f(password=hunter222)}]).",
  "/u?to=ada%40example.org&tel=%2B33612345678&q=card%3A4111111111111111%20ssn%3D536-90-4399%0Ask-proj-abcdefghijklmnop1234",
  String.raw`{"a":"{\"b\":\"{\\\"password\\\":\\\"ab\\\\\\\"cdefgh\\\\\\\\\\\",\\\"account\\\":123456789,\\\"token\\\":1234567}\"}"}`,
  String.raw`{"a":"x\n4111 1111 1111 1111\r\ntel: 5551234\tsk-proj-abcdefghijklmnop1234\nDE89370400440532013000\n","b":"\\n536-90-4399"}`,
  String.raw`password="abcd\"efgh1234\\" x {"args":"{\"password\":\"ab\\\"cdefgh1\\\\\",\"n\":1}"} pwd='a\'bcdef"g' `,
  "does it start with -----BEGIN PRIVATE KEY----- or not? Please tell me. I need help with invoices of last month.",
  `> -----BEGIN RSA PRIVATE KEY-----\n> ${"MIIEpAIB".repeat(8)}\n> ${"AAKCAQEA".repeat(8)}\n> short==\n> -----END RSA PRIVATE KEY-----\n> done`,
  "[REDACTED_EMAIL] a@b.co4111111111111111 tel a@b.co 555 1234",
  String.raw`{"a":"\u00e94111\\u00a01111 1111 1111 \u003cada\u0040b.co"} &#97;da&#64;b&period;co 4111&nbsp;1111\n1111&#160;1111 `,
  "٤١١١ 𝟏𝟏𝟏𝟏 1111\u{e0100} 1111 4111.1111.1111.1111 card 4111  1111  1111  1111 IBAN DE89.3704.0044.0532\n0130.00 ",
  "1 85 05 78 006 084 91 or AB 12 34 56 C, ada@b。co。Next 06·12·34·56·78 4111%201111%201111%201111",
];

test.each(DENSE)("%j is the same for every cut in two, and in single characters", (text) => {
  const whole = redactor.redact(text);
  for (let cut = 0; cut <= text.length; cut += 1) expect(told(text, [cut])).toBe(whole);
  expect(
    told(
      text,
      Array.from({ length: text.length }, (_, index) => index),
    ),
  ).toBe(whole);
});

const HOSTILE = [
  "1 ",
  "a.",
  "a@",
  "Aa ",
  "1-",
  "eyJ",
  "x:",
  "http://a:",
  "password",
  "token=abcdef ",
  "\ud83d",
];
const piece = fc.oneof(
  { weight: 5, arbitrary: fc.constantFrom(...DENSE.flatMap((text) => text.split(/(?<= )/))) },
  {
    weight: 1,
    arbitrary: fc.tuple(fc.constantFrom(...HOSTILE), fc.nat(30)).map(([one, n]) => one.repeat(n)),
  },
  { weight: 1, arbitrary: fc.string({ unit: "binary", maxLength: 8 }) },
  {
    weight: 1,
    arbitrary: fc.constantFrom(
      "\u00a0",
      "\u2011",
      "\uff11",
      "\uff20",
      "\ufe0f",
      "\u034f",
      "\u00a0\u200b",
      "\\n",
      String.raw`\u00e9`,
      String.raw`\u0022`,
      "&#64;",
      "&nbsp;",
      "\u0661",
      "\u{1d7cf}",
      "\u{e0101}",
      "%2B",
      "%20",
      "%",
      "\\",
    ),
  },
  { weight: 1, arbitrary: fc.constantFrom("\u200b", "\ufeff", "\u202e", "😀", "-----END PRIVATE KEY-----") },
);
const text = fc.array(piece, { maxLength: 8 }).map((all) => all.join(""));
const lengths = fc.array(fc.integer({ min: 0, max: 9 }), { minLength: 1, maxLength: 12 });

test("what cannot belong to a match is passed over, and no beginning of one with it", () => {
  const searches = structured.map((rule) => ({
    rule: compileRule(rule),
    all: new RegExp(`(?:${beginningsOf(rule.kind, rule.pattern).prefix})$`, `${rule.flags ?? ""}gu`),
  }));
  const check = (one: string): void => {
    for (const { rule, all } of searches) {
      all.lastIndex = 0;
      expect(rule.undecided(one, 0, false)).toBe(all.exec(one)?.index ?? one.length);
    }
  };
  fc.assert(fc.property(text, check), { numRuns: 300 });
});

/** Cuts after pieces of these lengths, again and again. */
function cutsOf(one: string, widths: readonly number[]): number[] {
  const cuts: number[] = [];
  for (let at = 0, turn = 0; at < one.length; turn += 1) {
    at += Math.max(turn % widths.length === 0 ? 1 : 0, widths[turn % widths.length] ?? 1);
    cuts.push(at);
  }
  return cuts;
}

test("any text in any pieces is told as it is whole", () => {
  const law = fc.property(text, fc.array(lengths, { minLength: 5, maxLength: 5 }), (one, ways) => {
    const whole = redactor.redact(one);
    for (const widths of ways) expect(told(one, cutsOf(one, widths))).toBe(whole);
  });
  fc.assert(law, { numRuns: 2200 });
});

// Bounded parts of all that a rule may be made of, put together at random.
const ATOMS = String.raw`a b [ab] [^b] - . 1 k é 😀 [é😀] \w \W \s \p{L} \u{1f600}`.split(" ");
const atom = fc.constantFrom(...ATOMS);
const repeated = fc
  .tuple(atom, fc.constantFrom("", "?", "{2}", "{1,3}", "{0,2}", "{1,4}?", "??"))
  .map(([one, count]) => one + count);
const sequence = fc
  .tuple(
    fc.constantFrom(
      "",
      String.raw`\b`,
      "(?<![ab])",
      "(?<=-)",
      String.raw`\B`,
      String.raw`(?<!\w)`,
      "(?<!a|-)",
    ),
    fc.array(
      fc.oneof(
        repeated,
        fc.tuple(repeated, repeated).map(([x, y]) => `(?:${x}${y}|${y}b){1,2}`),
      ),
      {
        minLength: 1,
        maxLength: 4,
      },
    ),
    fc.constantFrom("", String.raw`\b`, "(?=b{1,4}-)", "(?!-{1,3}a)", "(?!a)", "(?=[ab]{2}(?!a))"),
  )
  .map(([before, parts, after]) => before + parts.join("") + after);
const pattern = fc.oneof(
  { weight: 3, arbitrary: sequence },
  { weight: 1, arbitrary: fc.tuple(sequence, sequence).map((two) => two.join("|")) },
  { weight: 1, arbitrary: fc.tuple(sequence, sequence, atom).map(([x, y, z]) => `(${x}|${y})${z}`) },
);

const flags = fc.constantFrom("", "i", "s", "is");

test("a rule alone finds what its regular expression finds", () => {
  const small = fc.array(fc.constantFrom("a", "b", "-", "😀", "aab", "--a", ".", "é", "1", "\n", "K"), {
    maxLength: 30,
  });
  const law = fc.property(pattern, flags, small, (one, given, parts) => {
    const found = parts
      .join("")
      .replaceAll(new RegExp(one, `${given}gu`), (match) => (match === "" ? "" : "[REDACTED_K]"));
    const rule = compileRule({ kind: "K", pattern: one, flags: given });
    expect(redactionStream([rule]).push(parts.join(""), true)).toBe(found);
  });
  fc.assert(law, { numRuns: 1500 });
});

const always = structured.map(compileRule);

test("any rules that are bounded tell a text in pieces as it is whole", () => {
  const words = String.raw`a b - 😀 aab --a B é 1 １ K %20 %4 &#97; \ \n \u0061`.split(" ");
  const small = fc.array(fc.constantFrom(...words, "\n", "\u200b"), { maxLength: 20 });
  const each = fc.tuple(pattern, flags, fc.constantFrom("", "(?:)|-b-"));
  const law = fc.property(fc.tuple(each, each), small, lengths, (patterns, parts, widths) => {
    const own: Own[] = patterns.map(([one, given, more], index) => ({
      kind: `K${index}`,
      pattern: one + more,
      flags: given,
      ...(/^\((?!\?)/.test(one) ? { group: 1 } : {}),
    }));
    // An operator may not have all of these: some cost too much.
    const rules = [...always, ...own.map(compileRule)];
    const by = { stream: () => redactionStream(rules) };
    const one = parts.join("");
    expect(told(one, cutsOf(one, widths), by)).toBe(by.stream().push(one, true));
  });
  fc.assert(law, { numRuns: 1500 });
});

test("a rule whose dot takes line breaks is followed over them", () => {
  const by = new Redactor({ own: [{ kind: "NOTE", pattern: "A9.{1,60}Z9", flags: "s" }] });
  const stream = by.stream();
  const parts = ["x A9", "\nhello\n", "and more words here ", "q Z9", " y"];
  expect(parts.map((part) => stream.push(part)).join("") + stream.push("", true)).toBe("x [REDACTED_NOTE] y");
});

test("a label is held with its value: told alone, it would leave the value in clear", () => {
  const stream = redactor.stream();
  expect(stream.push("the password=")).toBe("the ");
  expect(stream.push("hun")).toBe("");
  // It may still become an e-mail address.
  expect(stream.push("ter22")).toBe("");
  expect(stream.push(" and ")).toBe("password=[REDACTED_SECRET] ");
});

test("what a carry-over of the last 128 characters would tell too early is held", () => {
  const stream = redactor.stream();
  const address = `${"a".repeat(60)}@${"b.".repeat(60)}`;
  const early = address
    .split("")
    .map((character) => stream.push(character))
    .join("");
  expect(early).toBe("");
  expect(stream.held).toBe(address.length);
  expect(stream.push("org now", true)).toBe("[REDACTED_EMAIL] now");
});

test("a placeholder is told before all of a long secret has come", () => {
  const stream = redactor.stream();
  expect(stream.push("-----BEGIN PRIVATE KEY-----\nM")).toBe("[REDACTED_SECRET]");
  expect(stream.push("MII".repeat(1000))).toBe("");
  expect(stream.held).toBeLessThanOrEqual(300);
  expect(stream.push("-----END PRIVATE KEY----- done", true)).toBe(" done");
});

test("a private key without an end is dropped for 16,000 characters", () => {
  expect(redactor.redact(`-----BEGIN PRIVATE KEY-----${"x".repeat(16_000)}abc`)).toBe("[REDACTED_SECRET]abc");
});

test("what is never decided is told as one placeholder, and the stream goes on", () => {
  const chain = new Redactor({
    own: [
      { kind: "CHAIN", pattern: "(?<!z)ab[^z]{0,3}ab" },
      { kind: "LINK", pattern: "b[^z]{0,3}a" },
    ],
  });
  const found: string[] = [];
  const stream = chain.stream((kind) => found.push(kind));
  let all = "";
  for (let turn = 0; turn < 70; turn += 1) all += stream.push("ab".repeat(32));
  expect(all).toBe("[REDACTED]");
  expect(found).toEqual(["UNDECIDED"]);
  expect(stream.held).toBeLessThan(4096);
  expect(stream.push("zz and a@b.co.", true)).toMatch(/zz and \[REDACTED_EMAIL\]\.$/);
});

test("a stream can be used again after its last piece", () => {
  const stream = redactor.stream();
  expect(stream.push("a@b.co", true)).toBe("[REDACTED_EMAIL]");
  expect(stream.held).toBe(0);
  expect(stream.push("123-45-6789", true)).toBe("[REDACTED_SSN]");
});

test("a text in which nothing is found stays as it is, whatever stands for spaces, dashes and digits", () => {
  const unusual = fc.constantFrom(
    ..."\u00a0\u202f\u2011–—−１９ＡＺｚ（）＠：\u3000\u061c\u180e\u034f\ufe0f\u200b".split(""),
    " ",
    "Ab",
    "é",
  );
  const law = fc.property(fc.array(unusual, { maxLength: 30 }), lengths, (parts, widths) => {
    const one = parts.join("");
    const whole = redactor.redact(one);
    expect(whole.includes("[REDACTED") || whole === one).toBe(true);
    expect(told(one, cutsOf(one, widths))).toBe(whole);
  });
  fc.assert(law, { numRuns: 2000 });
  const french = "« 1\u202f234\u202f567\u00a0€ – dit-elle\u00a0: non\u00a0! » ＡＢＣ１２３";
  expect(redactor.redact(french)).toBe(french);
});

test("invisible characters stay outside of findings and go inside of them", () => {
  expect(redactor.redact("\u200ba\u200bb 123\u200b-45-\u20606789\ufeff.")).toBe(
    "\u200ba\u200bb [REDACTED_SSN]\ufeff.",
  );
});

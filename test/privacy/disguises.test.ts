// Characters that are written by their number, or that only look like plain ones, hide nothing, wherever a text is cut.
import { expect, test } from "vitest";
import { Redactor, redactText } from "../../server/privacy/redact.ts";

const redactor = new Redactor();

const found: [text: string, redacted: string][] = [
  ["ada&#64;example.org, ada&commat;example&period;org", "[REDACTED_EMAIL], [REDACTED_EMAIL]"],
  ["&#97;&#x64;&#X61;&#x40;example&#46;org;", "[REDACTED_EMAIL];"],
  ["ada﹫example﹒org", "[REDACTED_EMAIL]"],
  ["4111&nbsp;1111&#160;1111&#xa0;1111&nbsp;.", "[REDACTED_CREDIT_CARD]&nbsp;."],
  ["t&eacute;l&nbsp;: 06&nbsp;12&nbsp;34&nbsp;56&nbsp;78", "t&eacute;l&nbsp;: [REDACTED_PHONE]"],
  ["٤١١١ ١١١١ ١١١١ ١١١١ و ۴۱۱۱۱۱۱۱۱۱۱۱۱۱۱۱", "[REDACTED_CREDIT_CARD] و [REDACTED_CREDIT_CARD]"],
  ["ssn ५३६-९०-४३९९", "ssn [REDACTED_SSN]"],
  ["𝟒𝟏𝟏𝟏 𝟙𝟙𝟙𝟙 𝟭𝟭𝟭𝟭 𝟷𝟷𝟷𝟷", "[REDACTED_CREDIT_CARD]"],
  ["536\u{e0100}-90-\u{e0041}4399 \u{e0001}x", "[REDACTED_SSN] \u{e0001}x"],
  [
    String.raw`"\u20ac4111111111111111 \u0022536-90-4399\u0022"`,
    String.raw`"\u20ac[REDACTED_CREDIT_CARD] \u0022[REDACTED_SSN]\u0022"`,
  ],
  [String.raw`{"a":"\u000a06\u00a012\u00a034\u00a056\u00a078"}`, String.raw`{"a":"\u000a[REDACTED_PHONE]"}`],
  [
    String.raw`{\"a\":\"\\u00e94111\\u202f111111111111\\u003c\"}`,
    String.raw`{\"a\":\"\\u00e9[REDACTED_CREDIT_CARD]\\u003c\"}`,
  ],
  [String.raw`\u00e9da\u0040example.org\u003e`, String.raw`[REDACTED_EMAIL]\u003e`],
  [
    String.raw`{"a":"password: hunt\ner2222\u000ax y\nz"}`,
    String.raw`{"a":"password: [REDACTED_SECRET] y\nz"}`,
  ],
  [String.raw`{"password":"hunt\n er\u000a22\t22"}`, `{"password":"[REDACTED_SECRET]"}`],
  [
    String.raw`{"a":"{\n  x: {password: hunt\ner2222\n  },\n y }"}`,
    String.raw`{"a":"{\n  x: {password: [REDACTED_SECRET]\n  },\n y }"}`,
  ],
  [
    String.raw`ssn:\r\n536-90-4399\nx, tel.\t06 12 34 56 78\t2`,
    String.raw`ssn:\r\n[REDACTED_SSN]\nx, tel.\t[REDACTED_PHONE]\t2`,
  ],
  [`${"\\".repeat(15)}n4111111111111111`, `${"\\".repeat(15)}n[REDACTED_CREDIT_CARD]`],
  [String.raw`password\u003dhunter222\u0026user=x`, String.raw`password\u003d[REDACTED_SECRET]\u0026user=x`],
];

test.each(found)("%j holds what it is read as", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

const alone = [
  "AT&T &c &nbsp; &#1; &#64 &amp;nbsp; &copy;",
  String.raw`\u00e9 \\u00e9 C:\users\u12 \ud83d\ude00 \u005b\u0022`,
  String.raw`${"\\".repeat(17)}u0041${"\\".repeat(20)}`,
  "١٢٣ 𝟏𝟐 🏴\u{e0067}\u{e0062}\u{e007f} 😀 \ud83d \udc00",
];

test.each(alone)("%j is left as it is", (text) => {
  expect(redactText(text)).toBe(text);
});

test.each([...found.map(([text]) => text), ...alone])("%j is the same for every cut", (text) => {
  const whole = redactText(text);
  for (let first = 0; first <= text.length; first += 1)
    for (let second = first; second <= Math.min(text.length, first + 9); second += 1) {
      const stream = redactor.stream();
      const told = [text.slice(0, first), text.slice(first, second)].map((piece) => stream.push(piece));
      expect(told.join("") + stream.push(text.slice(second), true)).toBe(whole);
    }
});

const ascii = (text: string): string =>
  text.replaceAll(/[^ -~]/g, (unit) => String.raw`\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);

test("a card is found behind any letter that JSON writes as an escape, and JSON stays JSON", () => {
  for (const before of ["é", "\u00a0", "€", "😀", "名"]) {
    let text = ascii(JSON.stringify({ note: `x${before}4111111111111111${before}` }));
    for (let depth = 0; depth < 3; depth += 1) {
      let redacted = redactText(text);
      expect(redacted).not.toContain("1111");
      for (let at = 0; at < depth; at += 1) redacted = (JSON.parse(redacted) as { args: string }).args;
      expect((JSON.parse(redacted) as { note: string }).note).toMatch(
        /^x.{1,2}\[REDACTED_CREDIT_CARD\].{1,2}$/u,
      );
      text = ascii(JSON.stringify({ args: text }));
    }
  }
});

// What each rule finds and leaves alone, and that redacting twice changes nothing.
import { createHash } from "node:crypto";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Redactor, redactText } from "../../server/privacy/redact.ts";

test.each([
  ["write to ada.lovelace+x@mail.example.org.", "write to [REDACTED_EMAIL]."],
  ["ada[at]example[dot]org or ada%40example.org", "[REDACTED_EMAIL] or [REDACTED_EMAIL]"],
  ["ada (at) example (dot) org", "[REDACTED_EMAIL]"],
  ["jürgen@müller.example", "[REDACTED_EMAIL]"],
  ["card 4111 1111 1111 1111 12/27", "card [REDACTED_CREDIT_CARD] 12/27"],
  ["card 4111111111111111, thanks", "card [REDACTED_CREDIT_CARD], thanks"],
  ["paid by 4000-0000-0093-8061", "paid by [REDACTED_CREDIT_CARD]"],
  ["Amex 378282246310006", "Amex [REDACTED_CREDIT_CARD]"],
  ["IBAN GB82 WEST 1234 5698 7654 32 is mine", "IBAN [REDACTED_IBAN] is mine"],
  ["DE89370400440532013000", "[REDACTED_IBAN]"],
  ["iban destination: gb50mvfc40013122345678", "iban destination: [REDACTED_IBAN]"],
  ["ssn 123-45-6789.", "ssn [REDACTED_SSN]."],
  ["SSN: 123456789", "SSN: [REDACTED_SSN]"],
  ["social security 36O-89-l338", "social security [REDACTED_SSN]"],
  ["at 00:1B:44:11:3A:B7 or 001b.4411.3ab7", "at [REDACTED_MAC] or [REDACTED_MAC]"],
  ["from 10.0.0.1 and fe80::1:2.", "from [REDACTED_IP] and [REDACTED_IP]."],
  ["2001:0db8:85a3:0000:0000:8a2e:0370:7334", "[REDACTED_IP]"],
  ["born on 4 July 1976", "born on [REDACTED_DOB]"],
  ["DOB: 1976-07-04, seen 2020-01-01", "DOB: [REDACTED_DOB], seen 2020-01-01"],
  ["123-45-6789|1990-04-12|x", "[REDACTED_SSN]|[REDACTED_DOB]|x"],
  ["call +44 20 7946 0958 now", "call [REDACTED_PHONE] now"],
  ["call (415) 555-2671 or 415-555-2671", "call [REDACTED_PHONE] or [REDACTED_PHONE]"],
  [
    "06-12-34-56-78, 01.23.54.67.89 ou 06 12 34 56 78",
    "[REDACTED_PHONE], [REDACTED_PHONE] ou [REDACTED_PHONE]",
  ],
  ["01-23-45-67-89", "[REDACTED_PHONE]"],
  ["appelez le 06/12/34/56/78 / 07 11 22 33 45.", "appelez le [REDACTED_PHONE] / [REDACTED_PHONE]."],
  ["/u?to=ada%40example.org&tel=%2B33612345678&n=1", "/u?to=[REDACTED_EMAIL]&tel=%2B[REDACTED_PHONE]&n=1"],
  ["q=card%3A4111111111111111%20ssn%3D536-90-4399", "q=card%3A[REDACTED_CREDIT_CARD]%20ssn%3D[REDACTED_SSN]"],
  [
    "?q=%204111111111111111&at=%0ADE89370400440532013000",
    "?q=%20[REDACTED_CREDIT_CARD]&at=%0A[REDACTED_IBAN]",
  ],
  ["?key%3D%22sk-proj-abcdefghijklmnop1234%22", "?key%3D%22[REDACTED_SECRET]"],
  ["my number is 785 8949", "my number is [REDACTED_PHONE]"],
  ["my number is 7858949", "my number is [REDACTED_PHONE]"],
  ["text me at 5551234", "text me at [REDACTED_PHONE]"],
  ["phone: 5551234", "phone: [REDACTED_PHONE]"],
  ["a number to reach is 785-8949", "a number to reach is [REDACTED_PHONE]"],
  ["455 6186 office", "[REDACTED_PHONE] office"],
  ["+4420794609 123-45-6789", "[REDACTED_PHONE] [REDACTED_SSN]"],
  ["lives at 12 Old Mill Road, Apt 4, Springfield, IL 62701.", "lives at [REDACTED_ADDRESS]."],
  ["MRN: 3359254 and passport no AB1234567", "MRN: [REDACTED_ID] and passport no [REDACTED_ID]"],
  ["by EMP-37129", "by [REDACTED_ID]"],
])("%j becomes %j", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

test.each([
  ["card 4111\u00a01111\u00a01111\u00a01111.", "card [REDACTED_CREDIT_CARD]."],
  ["4111\u202f1111\u20111111–1111", "[REDACTED_CREDIT_CARD]"],
  ["４１１１１１１１１１１１１１１１", "[REDACTED_CREDIT_CARD]"],
  ["4111\u034f1111\u034f11111111", "[REDACTED_CREDIT_CARD]"],
  ["IBAN: DE89\u00a03704\u00a00044\u00a00532\u00a00130\u00a000", "IBAN: [REDACTED_IBAN]"],
  ["DE89\u202f3704\u202f0044\u202f0532\u202f0130\u202f00", "[REDACTED_IBAN]"],
  ["SSN 536\u00a090\u00a04399", "SSN [REDACTED_SSN]"],
  ["536\u061c-90-4399 or 536–90–4399", "[REDACTED_SSN] or [REDACTED_SSN]"],
  ["+33\u202f6\u202f12\u202f34\u202f56\u202f78", "[REDACTED_PHONE]"],
  ["phone\u00a0: ０６\u00a012\u00a034\u00a056\u00a078", "phone\u00a0: [REDACTED_PHONE]"],
  ["ada＠example.org, ada\u180e@exam\u061cple.org", "[REDACTED_EMAIL], [REDACTED_EMAIL]"],
  ["ada\ufe0f@example.org or a\u0308da@example.org", "[REDACTED_EMAIL] or [REDACTED_EMAIL]"],
  ["password：hunter222，x", "password：[REDACTED_SECRET]，x"],
])("%j holds what it looks like", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

test.each([
  ["key sk-proj-abcdefghijklmnop1234 leaked", "key [REDACTED_SECRET] leaked"],
  ["AKIAIOSFODNN7EXAMPLE", "[REDACTED_SECRET]"],
  [`token ghp_${"a1".repeat(18)}`, "token [REDACTED_SECRET]"],
  [`"jwt": "eyJ${"h".repeat(40)}.eyJ${"b".repeat(400)}.x_1"`, `"jwt": "[REDACTED_SECRET]"`],
  ["password=hunter2222&user=x", "password=[REDACTED_SECRET]&user=x"],
  [`"api_key": "${"k9".repeat(150)}", "n": 1`, `"api_key": "[REDACTED_SECRET]", "n": 1`],
  [
    String.raw`{"args":"{\"token\":\"hunter22\",\"n\":1}"}`,
    String.raw`{"args":"{\"token\":\"[REDACTED_SECRET]\",\"n\":1}"}`,
  ],
  [String.raw`pwd=hunter22\" x`, String.raw`pwd=[REDACTED_SECRET]\" x`],
  [`pass := "a,b c's"`, `pass := "[REDACTED_SECRET]"`],
  [String.raw`password="abcd\"efgh1234" x`, `password="[REDACTED_SECRET]" x`],
  [String.raw`{"password":"a\"bcdefgh\\","n":1}`, `{"password":"[REDACTED_SECRET]","n":1}`],
  [String.raw`pwd: 'it\'s "mine"', x`, "pwd: '[REDACTED_SECRET]', x"],
  [
    String.raw`{"args":"{\"password\":\"ab\\\"cdefgh\",\"n\":1}"}`,
    String.raw`{"args":"{\"password\":\"[REDACTED_SECRET]\",\"n\":1}"}`,
  ],
  ["my password is swordfish1, ok?", "my password is [REDACTED_SECRET], ok?"],
  ["Authorization: Bearer abcdefghijklmnopqrstuv12 z", "Authorization: Bearer [REDACTED_SECRET] z"],
  ["token=Bearer abcdefghijklmnopqrstuv12 z", "token=Bearer [REDACTED_SECRET] z"],
  ["IDENTIFIED BY 'a b';", "IDENTIFIED BY '[REDACTED_SECRET]';"],
  ["use jdbc:mysql://u:p@h:3306/db now", "use [REDACTED_SECRET] now"],
  ["postgres://me:pw@db.example/x, then", "[REDACTED_SECRET], then"],
  ["password=string-1", "password=[REDACTED_SECRET]"],
])("the secret in %j goes", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

test("a private key goes from its first line to its last, or to the end when it was cut off", () => {
  const key = "-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIB\nAAKCAQEA\n";
  expect(redactText(`a ${key}-----END RSA PRIVATE KEY----- b`)).toBe("a [REDACTED_SECRET] b");
  expect(redactText(`a ${key}`)).toBe("a [REDACTED_SECRET]");
});

test("the first line of a private key in a sentence takes nothing along that is no key", () => {
  expect(redactText('a file with "-----BEGIN PRIVATE KEY-----"? I need help with invoices.')).toBe(
    'a file with "[REDACTED_SECRET]"? I need help with invoices.',
  );
  const lines = ["MIIEpAIB".repeat(8), "AAKCAQEA".repeat(8), "short=="];
  const key = ["-----BEGIN RSA PRIVATE KEY-----", ...lines, "-----END RSA PRIVATE KEY-----"];
  for (const glue of ["\n> ", "\\n", '\\n" +\n"', "<br>", "\n12 | "])
    expect(redactText(`see ${key.join(glue)} end`)).toBe("see [REDACTED_SECRET] end");
  const heads = ["Proc-Type: 4,ENCRYPTED", "DEK-Info: AES-128-CBC,0123456789ABCDEF", ""];
  expect(redactText([key[0], ...heads, ...key.slice(1), "end"].join("\n"))).toBe("[REDACTED_SECRET]\nend");
});

test("what overlaps is one finding, of the kind that begins first", () => {
  expect(redactText("password=ada@example.org 1")).toBe("password=[REDACTED_SECRET] 1");
  expect(redactText("token: 555-123 4567 x")).toBe("token: [REDACTED_SECRET] x");
});

test.each([
  "version 1.2.3 of 2024-01-31, 12:30",
  "order 4111 1111 1111 1112 has no valid check digit",
  "GB82 WEST 1234 5698 7654 33 has no valid check digits",
  "0000 0000 0000 0000",
  "section 415, page 2671, [1] [2]",
  "task-force and risk-taking-behaviour-in-groups",
  "@types/node and a@b",
  "the password is required and the token is invalid",
  "p53 in 1998-2004, 95% CI 1.02-1.31, n = 12345",
  "std::vector and 12:30:45",
  "127.0.0.1 and 0.0.0.0 are everybody's",
  "max tokens: 100000",
  '{"max_tokens":1234567890}',
  "login(password: string, token: unknown)",
  "api_key = os.environ['KEY'] and token: process.env.TOKEN",
  "ein 15000 Euro teures Auto, insurance is 20000",
  "a policy of 2020 and 5 Patients",
  "The answer is 3628800.",
  "the number of rows is 2500000",
  "we reach 1500000 users, at $1500000",
  "line 1048576 of the text has 1234567 characters",
  "call stack exceeded 1048576 bytes, calls: 12345678",
  "pull request number 1234567, cell count 4500000",
  "1500000 mobile users",
  "05 10 15 20 25 of 01-02-03-04-05",
  "06-12-34 and 01 12 34 56 78 90 12",
  "order 06-12-34-56-78",
  "[REDACTED]",
])("%j is left as it is", (text) => {
  expect(redactText(text)).toBe(text);
});

// The same on every run; base64 of it is like that of any image.
const noise = Buffer.concat(
  Array.from({ length: 12_000 }, (_, index) => createHash("sha512").update(String(index)).digest()),
).toString("base64");

test.each([`data:image/png;base64,${noise}`, noise, `{"file":"${noise}"}`])(
  "a megabyte of base64 is left as it is (%#)",
  (text) => {
    expect(new Redactor({ names: true }).redact(text)).toBe(text);
  },
);

test("what no image holds by chance is found at the border of one, and in a path", () => {
  const image = `data:image/png;base64,${noise.slice(0, 400)}`;
  expect(redactText(`${image} ada@example.org`)).toBe(`${image} [REDACTED_EMAIL]`);
  expect(redactText("/bank/accounts/of/this/customer/in/Germany/DE89370400440532013000/view")).toContain(
    "/[REDACTED_IBAN]/view",
  );
  const token = `eyJ${"aB3".repeat(20)}`;
  expect(redactText(`https://example.org/verify/my/account/${token}`)).toBe(
    "https://example.org/verify/my/account/[REDACTED_SECRET]",
  );
});

test("an IBAN in small letters counts in groups, or when somebody says what it is", () => {
  const found = ["gb82 west 1234 5698 7654 32", "iban: gb82west12345698765432", "GB82WEST12345698765432"];
  for (const text of found) expect(redactText(text)).toContain("[REDACTED_IBAN]");
  expect(redactText("gb82west12345698765432")).toBe("gb82west12345698765432");
});

const kinds = "SECRET EMAIL IBAN CREDIT_CARD SSN MAC IP DOB PHONE ADDRESS PERSON ID OWN_KIND".split(" ");

test.each(kinds)("no rule finds anything in the placeholder of %s, whatever stands before it", (kind) => {
  const redactor = new Redactor({ names: true });
  const text = [
    "password=",
    "token: ",
    "Bearer ",
    "ssn ",
    "iban ",
    "card ",
    "MRN: ",
    "Dr. ",
    "x://a:b@",
    "5 Aa ",
    "IDENTIFIED BY '",
  ]
    .map((before) => `${before}[REDACTED_${kind}]`)
    .join("\n");
  expect(redactor.redact(text)).toBe(text);
});

test("every finding is reported by its kind", () => {
  const found: string[] = [];
  redactText("nothing");
  new Redactor().redact("a@b.co, c@d.co, 123-45-6789", (kind) => found.push(kind));
  expect(found).toEqual(["EMAIL", "EMAIL", "SSN"]);
});

test("an operator's own rule is one more kind", () => {
  const redactor = new Redactor({
    own: [
      { kind: "BADGE", pattern: String.raw`\bB-\d{4}\b` },
      { kind: "CASE", pattern: String.raw`case (\d{3}) closed`, flags: "i", group: 1 },
    ],
  });
  expect(redactor.redact("B-1234, Case 778 closed")).toBe("[REDACTED_BADGE], Case [REDACTED_CASE] closed");
});

test.each([String.raw`\bE-\d{3}`, String.raw`(?:\bE|(?<!\w)F)-\d{3}`, String.raw`(?:no )?\bE-\d{3}`])(
  "a placeholder makes no border for %s",
  (pattern) => {
    const redactor = new Redactor({ own: [{ kind: "BADGE", pattern }] });
    const once = redactor.redact("by E-123E-456");
    expect([once, redactor.redact(once)]).toEqual(["by [REDACTED_BADGE]E-456", once]);
  },
);

test("redacting twice changes nothing", () => {
  const redactor = new Redactor({ names: true });
  const parts = [
    "a@b.co",
    "4111111111111111",
    "123-45-6789",
    "+4420794609",
    "58",
    "DE89370400440532013000",
    "-",
    " ",
    "]",
    "x",
    "sk-aaaaaaaaaaaaaaaaaaaa",
    "password=",
    "is ",
    "ssn ",
    "born ",
    "1990-04-12",
    "Anna ",
    "Smith",
    "Dr. ",
    "10.0.0.1",
    "::",
    "tel ",
    "555 1234",
    "\u200b",
    "[REDACTED_PHONE]",
    "http://a:b@",
    String.raw`\u00e9`,
    "&#64;",
    "&nbsp;",
    "%20",
    "[",
    '"',
    ",",
    "'A",
    "\\",
    "\n",
    "4111.1111.1111.1111",
    "AB 12 34 56 C",
    "-----BEGIN PRIVATE KEY-----",
    "-----END PRIVATE KEY-----",
  ];
  const text = fc
    .array(fc.oneof({ weight: 4, arbitrary: fc.constantFrom(...parts) }, fc.string()), { maxLength: 12 })
    .map((all) => all.join(""));
  const law = fc.property(text, (one) => {
    expect(redactor.redact(redactor.redact(one))).toBe(redactor.redact(one));
  });
  // Beside a number of JSON, whose placeholder brings quotes; and a name that goes on behind an apostrophe.
  const examples = ["[4111111111111111+4420794609", "[4111111111111111::58", `Leu'A'sk-${"a".repeat(20)}`];
  fc.assert(law, { numRuns: 5000, examples: examples.map((one) => [one]) });
});

test.each([
  "a",
  "1",
  "A1",
  "a.",
  "1 ",
  "+1",
  "@",
  "a@",
  "sk-",
  "eyJ.",
  "1-",
  "password",
  "Aa ",
  "iban GB82 ",
])("300 KB of %j come to an end", (one) => {
  const text = one.repeat(300_000 / one.length);
  expect(redactText(text).length).toBeLessThanOrEqual(text.length);
});

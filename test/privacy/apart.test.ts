// Cards, accounts and other numbers whose groups stand apart as in pages, tables and addresses.
import { expect, test } from "vitest";
import { Redactor, redactText } from "../../server/privacy/redact.ts";

const redactor = new Redactor();

const found: [text: string, redacted: string][] = [
  ["x 4111.1111.1111.1111, 4111·1111·1111·1111", "x [REDACTED_CREDIT_CARD], [REDACTED_CREDIT_CARD]"],
  ["4111_1111_1111_1111 or 4111/1111/1111/1111", "[REDACTED_CREDIT_CARD] or [REDACTED_CREDIT_CARD]"],
  ["4111 - 1111 - 1111 - 1111 5", "4111 - 1111 - 1111 - 1111 5"],
  ["(4111 - 1111 - 1111 - 1111)", "([REDACTED_CREDIT_CARD])"],
  ["4111 1111\n1111 1111, 4111-1111-1111\r\n1111", "[REDACTED_CREDIT_CARD], [REDACTED_CREDIT_CARD]"],
  [String.raw`{"a":"4111 1111\n1111 1111"}`, `{"a":"[REDACTED_CREDIT_CARD]"}`],
  ["?n=4111%201111%201111%201111&x", "?n=[REDACTED_CREDIT_CARD]&x"],
  ["card 4111  1111  1111  1111", "card [REDACTED_CREDIT_CARD]"],
  ["card:\t4111\t1111\t1111\t1111\tAda", "card:\t[REDACTED_CREDIT_CARD]\tAda"],
  ["card=4111+1111+1111+1111&x", "card=[REDACTED_CREDIT_CARD]&x"],
  ["4111 1111 1111 1111\n12/27\n123", "[REDACTED_CREDIT_CARD]\n12/27\n123"],
  ["DE89.3704.0044.0532.0130.00", "[REDACTED_IBAN]"],
  ["DE89  3704  0044  0532  0130  00", "[REDACTED_IBAN]"],
  ["DE89 3704 0044\n0532 0130 00\nBIC COBADEFF", "[REDACTED_IBAN]\nBIC COBADEFF"],
  ["GB82%20WEST%201234%205698%207654%2032 x", "[REDACTED_IBAN] x"],
  ["SSN 536  90  4399, ssn 536/90/4399", "SSN [REDACTED_SSN], ssn [REDACTED_SSN]"],
  ["06·12·34·56·78 or 06  12  34  56  78", "[REDACTED_PHONE] or [REDACTED_PHONE]"],
  ["ada@mail%2Eorg ada@example。org", "[REDACTED_EMAIL] [REDACTED_EMAIL]"],
  ["写信给ada@example.org。谢谢 ada@example.org。Thanks", "[REDACTED_EMAIL]。谢谢 [REDACTED_EMAIL]。Thanks"],
];

test.each(found)("%j becomes %j", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

const alone = [
  "4111_1111_1111_1112",
  "4111_1111.1111_1111",
  "Revenue\t4111\t1111\t1111\t1111\tin all",
  "Revenue  4111  1111  1111  1111  in all",
  "4111+1111+1111+1111 = 7444",
  "1200 4500\n4111 1111\n1111 1111\n5200 6100",
  "4111/1111/1111/1111/1111",
  "2012/2013/2014/2015 or 2000_2010_2020_2030",
  "2·3·5·7 = 210 and 2.3.5",
  "GB82_WEST_1234_5698_7654_33",
  "gb82_west_1234_5698_7654_32.txt",
  "结果是5.2。Then",
];

test.each(alone)("%j is left as it is", (text) => {
  expect(redactText(text)).toBe(text);
});

test.each([...found.map(([text]) => text), ...alone])("%j is the same for every cut", (text) => {
  const whole = redactText(text);
  for (let cut = 0; cut <= text.length; cut += 1) {
    const stream = redactor.stream();
    expect(stream.push(text.slice(0, cut)) + stream.push(text.slice(cut), true)).toBe(whole);
  }
  const stream = redactor.stream();
  const told = text.split("").map((piece) => stream.push(piece));
  expect(told.join("") + stream.push("", true)).toBe(whole);
});

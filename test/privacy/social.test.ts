// Numbers of the social insurance of France and Great Britain, by their rules of check or by the word before them.
import { expect, test } from "vitest";
import { redactText } from "../../server/privacy/redact.ts";

test.each([
  ["185057800608491, 1 85 05 78 006 084 91", "[REDACTED_SSN], [REDACTED_SSN]"],
  ["1-85-05-78-006-084-91", "[REDACTED_SSN]"],
  ["185052A00608435 and 1 85 05 2A 006 084 35", "[REDACTED_SSN] and [REDACTED_SSN]"],
  ["NIR 1850578006084", "NIR [REDACTED_SSN]"],
  ["numéro de sécurité sociale : 1 85 05 78 006 084", "numéro de sécurité sociale : [REDACTED_SSN]"],
  ["AB 12 34 56 C, AB-12-34-56-C", "[REDACTED_SSN], [REDACTED_SSN]"],
  ["my NI number is AB123456C", "my NI number is [REDACTED_SSN]"],
  ["National Insurance: AB 123456 C", "National Insurance: [REDACTED_SSN]"],
])("%j becomes %j", (text, redacted) => {
  expect(redactText(text)).toBe(redacted);
});

test.each([
  "185057800608437, 1 85 05 78 006 084 36",
  "100000000000053 and 185138000000067",
  "part AB123456C of GB 12 34 56 C",
  "AB 12 34 56 E and DA 12 34 56 C",
  "AB 12 34 56",
])("%j is left as it is", (text) => {
  expect(redactText(text)).toBe(text);
});

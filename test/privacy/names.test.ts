// Which words are taken for names of persons, when somebody asks for that.
import { expect, test } from "vitest";
import { Redactor, redactText } from "../../server/privacy/redact.ts";

const redactor = new Redactor({ names: true });

test.each([
  ["Anna Smith wrote", "[REDACTED_PERSON] wrote"],
  ["ask Dr. Peter J. Garcia, please", "ask [REDACTED_PERSON], please"],
  ["ask Mr Qwertzu about it", "ask [REDACTED_PERSON] about it"],
  ["Maria de la Cruz and Kofi", "[REDACTED_PERSON] and [REDACTED_PERSON]"],
  ["Anna's book", "[REDACTED_PERSON]'s book"],
  ["Mark Fischer came", "[REDACTED_PERSON] came"],
  ["Jean-Pierre Muller", "[REDACTED_PERSON]"],
  ["I met Anna. The rest", "I met [REDACTED_PERSON]. The rest"],
  ["Ольга Иванова", "[REDACTED_PERSON]"],
])("%j becomes %j", (text, redacted) => {
  expect(redactor.redact(text)).toBe(redacted);
});

test.each(["May I see the Rose", "The Long Road", "Will it do", "Mark this", "KEY_Anna xAnna", "Dr. who"])(
  "%j is left as it is",
  (text) => {
    expect(redactor.redact(text)).toBe(text);
  },
);

test("names stay unless they are asked for", () => {
  expect(redactText("Anna Smith wrote")).toBe("Anna Smith wrote");
});

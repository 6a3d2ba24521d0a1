import { expect, test } from "vitest";
import { NOTHING_FOUND, answerFrom } from "../../../server/models/offline/extract.ts";
import type { Turn } from "../../../server/models/offline/extract.ts";
import fc from "fast-check";

const shop = `# Refunds

We refund every order that comes back within 30 days of delivery. The money arrives on the card that paid
within five working days.

# Shipping

- Parcels to Norway take eight days.
- Parcels inside the country take two days.

Express delivery costs 12 euros.`;
const handbook = `The workshop opens at nine in the morning. Dogs are welcome in the workshop if they are quiet.
Parking is free for visitors after six.`;

const prompt = (bodies: readonly string[]): Turn => ({
  role: "system",
  content: `Answer from these.\n<passages>\n${bodies
    .map(
      (body, index) =>
        `<passage n="${index + 1}" source="${index}.md" title="File ${index + 1}">\n${body}\n</passage>`,
    )
    .join("\n")}\n</passages>`,
});
const ask = (...questions: string[]): string =>
  answerFrom([prompt([shop, handbook]), ...questions.map((content) => ({ role: "user", content }))]);

test.each([
  [
    "Can I get a refund for my order?",
    "We refund every order that comes back within 30 days of delivery. [1]",
  ],
  ["How long do parcels to Norway take?", "Parcels to Norway take eight days. [1]"],
  ["When does the workshop open?", "The workshop opens at nine in the morning. [2]"],
  ["are dogs allowed in the workshop", "Dogs are welcome in the workshop if they are quiet. [2]"],
  ["What does express delivery cost?", "Express delivery costs 12 euros. [1]"],
  ["Where can visitors park?", "Parking is free for visitors after six. [2]"],
])("%j is answered with the sentence that says so", (question, sentence) => {
  expect(ask(question)).toContain(sentence);
});

test("an answer ends with the titles of the passages it cites, and no others", () => {
  expect(ask("When does the workshop open?")).toMatch(/\n\nSources:\n\[2\] File 2$/);
});

test.each(["Who won the chess championship of 1972?", "What is the capital of France?", "", "???"])(
  "%j is not in the documents, and the answer says so",
  (question) => {
    expect(ask(question)).toBe(NOTHING_FOUND);
  },
);

test("a prompt without passages is answered with nothing found", () => {
  expect(answerFrom([{ role: "user", content: "Hello?" }])).toBe(NOTHING_FOUND);
});

test("a short follow-up is read together with the question before it", () => {
  expect(ask("Do you ship parcels to Norway?", "and how long?")).toContain(
    "Parcels to Norway take eight days. [1]",
  );
});

test("no answer holds a sentence that is not in its passage", () => {
  const word = fc.constantFrom(
    "refund",
    "order",
    "dogs",
    "workshop",
    "Norway",
    "days",
    "open",
    "card",
    "cost",
    "moon",
  );
  const words = fc.array(word, { minLength: 1, maxLength: 6 }).map((all) => all.join(" "));
  const flat = [shop, handbook].map((body) => body.replaceAll(/\s+/g, " "));
  fc.assert(
    fc.property(words, (question) => {
      const [answer = ""] = ask(question).split("\n\nSources:");
      if (answer === NOTHING_FOUND) return;
      for (const [, sentence = "", n] of answer.matchAll(/(.+?) \[(\d)\](?: |$)/g)) {
        expect(flat[Number(n) - 1]).toContain(sentence);
      }
    }),
  );
});

test("a 300 KB question is answered at once", () => {
  const startedAt = performance.now();
  ask("a".repeat(300_000));
  ask("refund ".repeat(43_000));
  expect(performance.now() - startedAt).toBeLessThan(2000);
});

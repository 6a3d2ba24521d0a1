// Replaces personal data and secrets in a text by placeholders. Pure; redacting twice changes nothing.
import { patterns } from "./patterns.ts";
import type { Pattern } from "./patterns.ts";

/**
 * Replaces e-mail addresses, phone, card, US social security and bank account numbers and API keys.
 * @example redactText("write to ada@example.org") // "write to [REDACTED_EMAIL]"
 */
export function redactText(text: string): string {
  let before = text;
  let after = redactOnce(before);
  // A placeholder can be a word border that a value beside it did not have before.
  while (after !== before) [before, after] = [after, redactOnce(after)];
  return after;
}

const redactOnce = (text: string): string => patterns.reduce(replaceAll, text);

function replaceAll(text: string, { kind, regex, accept }: Pattern): string {
  return text.replaceAll(regex, (match: string) => {
    const length = accept ? accept(match) : match.length;
    return length === 0 ? match : `[REDACTED_${kind}]${match.slice(length)}`;
  });
}

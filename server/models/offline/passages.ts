// Reads the passages of a prompt (`<passage n="1" source="…" title="…">…</passage>`) and cuts them into
// sentences. White space is collapsed, nothing else is altered.
import { termsOf } from "./terms.ts";

export interface PromptPassage {
  readonly n: number;
  readonly source: string;
  readonly title: string;
  readonly body: string;
}

export interface Sentence {
  readonly text: string;
  /** Order within the passage. */
  readonly position: number;
  readonly terms: ReadonlySet<string>;
  /** Words of the heading it stands under. */
  readonly heading: ReadonlySet<string>;
}

const MAX_BODY = 20_000;
const MAX_SENTENCE = 600;
const SHORTEST_SENTENCE = 12;

export function passagesOf(prompts: readonly string[]): PromptPassage[] {
  return prompts.flatMap((prompt) => prompt.split("<passage ").slice(1)).flatMap(passageOf);
}

function passageOf(text: string): PromptPassage[] {
  const opened = text.indexOf(">\n");
  const closed = text.indexOf("</passage>");
  if (opened === -1 || closed < opened) return [];
  const head = text.slice(0, opened);
  const attribute = (name: string): string => plain(head.split(`${name}="`)[1]?.split('"')[0] ?? "");
  const n = Number(attribute("n"));
  const body = plain(text.slice(opened + 2, closed)).slice(0, MAX_BODY);
  return Number.isInteger(n) ? [{ n, source: attribute("source"), title: attribute("title"), body }] : [];
}

const plain = (text: string): string =>
  text.replaceAll("&lt;", "<").replaceAll("&quot;", '"').replaceAll("&amp;", "&");

/** Sentences of a text: paragraphs, list items and headings end one, and so does a full stop. */
export function sentencesOf(body: string): Sentence[] {
  const sentences: Sentence[] = [];
  let heading: ReadonlySet<string> = new Set();
  for (const block of body.split(
    /\n\s*\n|\n(?=\s{0,8}(?:[-*+#>|]|\d{1,3}[.)]\s|```))|(?<=^#[^\n]{0,200})\n/m,
  )) {
    if (/^\s*#/.test(block)) {
      heading = new Set(termsOf(block));
      continue;
    }
    const lines = block.replace(/^\s*(?:[-*+>]|\d{1,3}[.)])\s+/, "");
    for (const part of lines.split(/(?<=[.!?…]["')\]]{0,2})\s+(?=[\p{Lu}\p{N}"'`([])/u)) {
      const text = part.replaceAll(/\s+/g, " ").trim().slice(0, MAX_SENTENCE);
      if (text.length < SHORTEST_SENTENCE || text.startsWith("```") || text.endsWith("?")) continue;
      sentences.push({ text, position: sentences.length, terms: new Set(termsOf(text)), heading });
    }
  }
  return sentences;
}

// Text to chunks: no overlap, nothing lost but white space, each small enough for one posting list entry.
// A short document stays whole: on SciFact that ranks better than cutting every document at 1,600.
import { RecursiveCharacterTextSplitter } from "@langchain/textsplitters";

export type TextKind = "markdown" | "plain";

/** Part of every document's hash: a new value makes everything be indexed again. */
export const SPLIT_VERSION = 1;

/** Lengths are in size() units. */
const WHOLE = 2400;
const CHUNK = 1600;
const MAX_BYTES = 4096;

// Put after each sentence, so that a cut leaves the full stop where it belongs; a control character that
// loaded text never holds.
const SENTENCE = "\u001E";
// Never in a text. Without it the splitter would take a long word apart by UTF-16 units, inside characters.
const NEVER = "\u001F";
const PLAIN = ["\n\n", SENTENCE, "\n", " ", NEVER];
const MARKDOWN = ["\n# ", ...RecursiveCharacterTextSplitter.getSeparatorsForLanguage("markdown")];

const splitters = { markdown: splitter([...MARKDOWN.slice(0, -4), ...PLAIN]), plain: splitter(PLAIN) };

/** Chunks of at most 4,096 bytes, in order; none for blank text. */
export async function split(text: string, kind: TextKind): Promise<string[]> {
  const trimmed = text.trim();
  if (trimmed === "") return [];
  if (size(trimmed) <= WHOLE && Buffer.byteLength(trimmed) <= MAX_BYTES) return [trimmed];
  const pieces = await splitters[kind].splitText(markSentences(trimmed));
  return pieces
    .flatMap((piece) => cut(piece.replaceAll(SENTENCE, "").trim()))
    .filter((piece) => piece !== "");
}

function splitter(separators: string[]): RecursiveCharacterTextSplitter {
  return new RecursiveCharacterTextSplitter({
    separators,
    chunkSize: CHUNK,
    chunkOverlap: 0,
    lengthFunction: size,
  });
}

/** UTF-16 units, or more where a unit takes many bytes. Whole numbers: the splitter adds and subtracts them. */
function size(text: string): number {
  return Math.max(text.length, Math.ceil((Buffer.byteLength(text) * CHUNK) / MAX_BYTES));
}

function markSentences(text: string): string {
  return text.replaceAll(/(?<=[.!?]["'”’)\]]*)\s+|(?<=[。！？])/gu, (space) => `${SENTENCE}${space}`);
}

/** A run without any space, such as base64: the splitter leaves it whole. Never cuts inside a character. */
function cut(piece: string): string[] {
  if (size(piece) <= CHUNK) return [piece];
  const parts: string[] = [];
  let part = "";
  let bytes = 0;
  for (const character of piece) {
    bytes += Buffer.byteLength(character);
    if (part.length >= CHUNK || bytes > MAX_BYTES) {
      parts.push(part);
      part = "";
      bytes = Buffer.byteLength(character);
    }
    part += character;
  }
  return [...parts, part];
}

// Answers a question with sentences of the passages in its prompt, cited as [n]. It copies and never
// writes: every sentence of an answer stands in a passage (white space aside), or nothing was found.
import { passagesOf, sentencesOf } from "./passages.ts";
import type { PromptPassage, Sentence } from "./passages.ts";
import { termsOf } from "./terms.ts";

export interface Turn {
  readonly role: string;
  readonly content: string;
}

export const NOTHING_FOUND = "I found nothing about this in the documents.";

const MAX_SENTENCES = 3;
const MAX_PER_SOURCE = 2;
const MAX_QUESTION = 2000;
/** Share of the question's weight that a sentence must carry, and share of the best one's score. */
const THRESHOLD = 0.34;
const NEAR_BEST = 0.6;
/** What a word found only in the heading, or only elsewhere in the passage, is worth. */
const IN_HEADING = 0.5;
const IN_PASSAGE = 0.3;
const EARLIER_QUESTION = 0.4;
const FOLLOW_UP_TERMS = 2;

interface Scored {
  readonly sentence: Sentence;
  readonly passage: PromptPassage;
  readonly score: number;
}

/** The answer to the last user turn; earlier user turns help when it is a short follow-up. */
export function answerFrom(turns: readonly Turn[]): string {
  const passages = passagesOf(turns.filter(({ role }) => role === "system").map(({ content }) => content));
  const chosen = choose(score(passages, questionOf(turns)));
  if (chosen.length === 0) return NOTHING_FOUND;
  const ordered = chosen.toSorted(
    (a, b) => a.passage.n - b.passage.n || a.sentence.position - b.sentence.position,
  );
  const text = ordered.map(({ sentence, passage }) => `${sentence.text} [${passage.n}]`).join(" ");
  const cited = new Map(ordered.map(({ passage }) => [passage.n, passage.title]));
  return `${text}\n\nSources:\n${[...cited].map(([n, title]) => `[${n}] ${title}`).join("\n")}`;
}

/** Words of the question, with how much each one counts. */
function questionOf(turns: readonly Turn[]): Map<string, number> {
  const asked = turns
    .filter(({ role }) => role === "user")
    .map(({ content }) => content.slice(0, MAX_QUESTION));
  const last = new Set(termsOf(asked.at(-1) ?? ""));
  const earlier = last.size > FOLLOW_UP_TERMS ? [] : termsOf(asked.at(-2) ?? "");
  const terms = new Map(earlier.map((term) => [term, last.size === 0 ? 1 : EARLIER_QUESTION]));
  for (const term of last) terms.set(term, 1);
  return terms;
}

function score(passages: readonly PromptPassage[], question: ReadonlyMap<string, number>): Scored[] {
  const found = passages.map((passage) => ({ passage, sentences: sentencesOf(passage.body) }));
  const all = found.flatMap(({ sentences }) => sentences);
  const weights = new Map(
    [...question].map(([term, counts]) => {
      const holding = all.filter(({ terms, heading }) => terms.has(term) || heading.has(term)).length;
      // A word of the earlier question that no passage holds was about something else.
      if (holding === 0 && counts < 1) return [term, 0];
      return [term, counts * Math.log(1 + (all.length - holding + 0.5) / (holding + 0.5))];
    }),
  );
  const total = [...weights.values()].reduce((sum, weight) => sum + weight, 0);
  if (total === 0) return [];
  return found.flatMap(({ passage, sentences }, rank) => {
    const around = new Set([...termsOf(passage.title), ...sentences.flatMap(({ terms }) => [...terms])]);
    return sentences.map((sentence) => ({
      passage,
      sentence,
      score: cover({ sentence, around, weights }) / total + 0.02 / (rank + 1),
    }));
  });
}

interface Cover {
  readonly sentence: Sentence;
  readonly around: ReadonlySet<string>;
  readonly weights: ReadonlyMap<string, number>;
}

/** Weight of the question's words a sentence carries; 0 if neither it nor its heading holds any. */
function cover({ sentence, around, weights }: Cover): number {
  let own = 0;
  let near = 0;
  for (const [term, weight] of weights) {
    if (sentence.terms.has(term)) own += weight;
    else if (sentence.heading.has(term)) own += weight * IN_HEADING;
    else if (around.has(term)) near += weight * IN_PASSAGE;
  }
  return own === 0 ? 0 : own + near;
}

function choose(scored: readonly Scored[]): Scored[] {
  const best = scored.toSorted((a, b) => b.score - a.score);
  const floor = Math.max(THRESHOLD, (best[0]?.score ?? 0) * NEAR_BEST);
  const chosen: Scored[] = [];
  for (const one of best) {
    if (one.score < floor || chosen.length === MAX_SENTENCES) break;
    const sameSource = chosen.filter(({ passage }) => passage.source === one.passage.source);
    const isRepeated = chosen.some(({ sentence }) => sentence.text === one.sentence.text);
    if (sameSource.length < MAX_PER_SOURCE && !isRepeated) chosen.push(one);
  }
  return chosen;
}

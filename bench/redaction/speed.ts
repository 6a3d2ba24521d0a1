// How fast a text is redacted, what the worst texts cost, and how many characters a stream holds back.
import { performance } from "node:perf_hooks";
import type { Redactor } from "../../server/privacy/redact.ts";
import { round } from "./score.ts";

const HOSTILE_SIZE = 50_000;
const STREAMED_SIZE = 10_000;
const TOKEN = 4;
const KEY = "-----BEGIN PRIVATE KEY-----";
const HOSTILE = [
  ..."1 ,a.,a@,Aa ,1-,a,eyJ,x:,http://a:,password,1,(1,+1,a%40,1:,ab:,::,GB82,password=,token=abcdef ".split(
    ",",
  ),
  ..."Mr ,5 Aa Aa ,card 1 ,iban GB82 ,a [at] ,\u200b1,A'a-,\u{1f600},x://a:b@c ,Jan 1 ,born 1/,John ".split(
    ",",
  ),
  KEY,
  `${KEY}${KEY.replace("BEGIN", "END")}`,
  "-----BEGIN A ",
];

export function speedOn(redactor: Redactor, prose: readonly string[]): number {
  for (const text of prose.slice(0, 500)) redactor.redact(text);
  const start = performance.now();
  let bytes = 0;
  for (const text of prose) {
    redactor.redact(text);
    bytes += Buffer.byteLength(text);
  }
  return round(bytes / 1000 / (performance.now() - start), 2);
}

/** Findings in a megabyte of prose in which there should be none. */
export function falseSpansPerMb(redactor: Redactor, prose: readonly string[]): number {
  let found = 0;
  for (const text of prose) redactor.redact(text, () => (found += 1));
  const bytes = prose.reduce((sum, text) => sum + Buffer.byteLength(text), 0);
  return round(found / (bytes / 1_000_000), 1);
}

export function worstOf(redactor: Redactor): {
  worst_hostile_ms: number;
  worst_hostile: string;
  worst_push_ms: number;
} {
  let worst = { ms: 0, text: "" };
  let worstPush = 0;
  for (const one of HOSTILE) {
    const text = one.repeat(HOSTILE_SIZE / one.length);
    const ms = timed(() => redactor.redact(text));
    if (ms > worst.ms) worst = { ms, text: one };
    const stream = redactor.stream();
    for (const token of tokensOf(text.slice(0, STREAMED_SIZE))) {
      worstPush = Math.max(
        worstPush,
        timed(() => stream.push(token)),
      );
    }
    stream.push("", true);
  }
  return {
    worst_hostile_ms: round(worst.ms, 1),
    worst_hostile: worst.text,
    worst_push_ms: round(worstPush, 2),
  };
}

/** @param texts told in tokens of four characters */
export function heldOn(
  redactor: Redactor,
  texts: readonly string[],
): { mean: number; p99: number; max: number; token_us: number } {
  const held: number[] = [];
  const start = performance.now();
  for (const text of texts) {
    const stream = redactor.stream();
    for (const token of tokensOf(text)) {
      stream.push(token);
      held.push(stream.held);
    }
    stream.push("", true);
  }
  const microseconds = (performance.now() - start) * 1000;
  held.sort((a, b) => a - b);
  const mean = held.reduce((sum, one) => sum + one, 0) / held.length;
  return {
    mean: round(mean, 2),
    p99: held[Math.floor(held.length * 0.99)] ?? 0,
    max: held.at(-1) ?? 0,
    token_us: round(microseconds / held.length, 1),
  };
}

function timed(work: () => unknown): number {
  const start = performance.now();
  work();
  return performance.now() - start;
}

function tokensOf(text: string): string[] {
  return Array.from({ length: Math.ceil(text.length / TOKEN) }, (_, index) =>
    text.slice(index * TOKEN, (index + 1) * TOKEN),
  );
}

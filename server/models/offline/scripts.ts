// What the offline server does for a request: the extractive answer, or, for a model named `fake-…`, a
// provider that misbehaves in one known way. A function of the request alone: no clock, no randomness.
import { answerFrom } from "./extract.ts";
import type { Turn } from "./extract.ts";

/** How a stream ends. `cut` destroys the socket, `stall` sends nothing more, for ever. */
type Ending = "done" | "cut" | "stall" | "no-done" | "no-finish" | "bad-json";

export interface Script {
  /** An HTTP error instead of an answer. */
  readonly refusal?: { status: number; code: string; message: string; headers?: Record<string, string> };
  /** Never even answers with headers. */
  readonly isSilent?: true;
  readonly pieces?: readonly string[];
  /** Calls of tools after the text. */
  readonly calls?: readonly ScriptedCall[];
  readonly delayMs?: number;
  readonly ending?: Ending;
}

export interface ScriptedCall {
  readonly name: string;
  readonly args: object;
}

/** Chooses by model name; undefined leaves the request to the next chooser. */
export type Scripts = (model: string, turns: readonly Turn[]) => Script | undefined;

const refusal = (status: number, code: string, headers: Record<string, string> = {}): Script => ({
  refusal: { status, code, message: `This is what ${code} looks like.`, headers },
});

const fixed = new Map<string, Script>([
  ["fake-401", refusal(401, "invalid_api_key")],
  ["fake-404", refusal(404, "model_not_found")],
  ["fake-429", refusal(429, "rate_limit_exceeded", { "retry-after": "1" })],
  ["fake-quota", refusal(429, "insufficient_quota")],
  ["fake-500", refusal(500, "server_error")],
  ["fake-503", refusal(503, "overloaded")],
  ["fake-silent", { isSilent: true }],
  ["fake-stall", { pieces: ["It", " stalls"], ending: "stall" }],
  ["fake-nodone", { pieces: ["All", " of", " it."], ending: "no-done" }],
  ["fake-nofinish", { pieces: ["Half", " of"], ending: "no-finish" }],
  ["fake-badjson", { pieces: ["It", " breaks"], ending: "bad-json" }],
]);

/** The shipped chooser: every name has a script. */
export function scriptFor(model: string, turns: readonly Turn[]): Script {
  const last = turns.findLast(({ role }) => role === "user")?.content ?? "";
  if (model === "fake-echo") return { pieces: wordsOf(last) };
  // A provider that repeats the prompt in its error: nothing of it may come out again.
  if (model === "fake-400") return { refusal: { status: 400, code: "invalid_request_error", message: last } };
  const cut = /^fake-cut(?:-(\d+))?$/.exec(model);
  if (cut) return { pieces: numbered(Number(cut[1] ?? 3)), ending: "cut" };
  const slow = /^fake-slow-(\d+)tok-(\d+)ms$/.exec(model);
  if (slow) return { pieces: numbered(Number(slow[1])), delayMs: Number(slow[2]) };
  return fixed.get(model) ?? { pieces: wordsOf(answerFrom(turns)) };
}

/** Words with the white space before them, as tokens come: joined, they are the text again. */
export const wordsOf = (text: string): string[] => text.split(/(?<=\S)(?=\s)/);

const numbered = (count: number): string[] =>
  Array.from({ length: Math.min(count, 100_000) }, (_, index) => (index === 0 ? "tok0" : ` tok${index}`));

// One HTTP call, up to the moment from which it can no longer be made again without a trace: the first piece of text of
// a stream, or the whole of another answer. However it ends, its connection is closed, its timer stopped and `onEnd` told.
import { unlessAborted } from "../../clock.ts";
import { AppError, ModelFailed } from "../../errors.ts";
import { factsOf } from "../answer.ts";
import { sourceOf, withBody } from "../answer-body.ts";
import { Broken, readHead, readSome, readWhole, replay } from "./body.ts";
import type { End } from "./body.ts";
import type { Policy } from "./policy.ts";
import { refusalOf } from "./refusal.ts";
import type { Refusal } from "./refusal.ts";
import { Watch } from "./watch.ts";

/** Does something during a call that is no business of the model: the call's limits stand still meanwhile. */
export type Aside = <T>(work: () => Promise<T>) => Promise<T>;

export interface Call {
  readonly send: (signal: AbortSignal, aside: Aside) => Promise<Response>;
  readonly policy: Policy;
  /** Not a stream: the headers may take as long as the answer. */
  readonly isStream: boolean;
  /** When the whole request ends, in milliseconds of uptime(). */
  readonly endsAt: number;
  readonly signal?: AbortSignal | undefined;
  /** How the body of an answer that had begun ended, once. */
  readonly onEnd: (end: End) => void;
}

export type Outcome =
  | { readonly kind: "begun"; readonly response: Response }
  | { readonly kind: "refused"; readonly refusal: Refusal }
  /** A network error, a timeout, or a stream that ended before it had begun. */
  | { readonly kind: "broken"; readonly what: string };

/** @throws the signal's reason, and an AppError of `send` as it is */
export async function makeCall(call: Call): Promise<Outcome> {
  call.signal?.throwIfAborted();
  const watched = watch(call);
  const { stop, lateness } = watched;
  try {
    const aside: Aside = (work) => watched.watch.aside(work);
    const response = await answerOf(call.send(stop.signal, aside), stop.signal);
    const outcome = await read(response, call, watched);
    if (outcome.kind !== "begun") watched.release();
    return outcome;
  } catch (error) {
    watched.release();
    // Whatever is still open of it is not wanted.
    stop.abort(error);
    call.signal?.throwIfAborted();
    const late = lateness();
    if (late !== undefined) return { kind: "broken", what: late };
    if (error instanceof AppError) throw error;
    if (error instanceof Broken) return { kind: "broken", what: error.message };
    const { code, kind } = factsOf(error);
    return { kind: "broken", what: `network error ${code || kind}` };
  }
}

interface Watched {
  readonly watch: Watch;
  /** Aborts the call when its caller does, and when the model is too slow. */
  readonly stop: AbortController;
  /** What the model was too slow with. */
  readonly lateness: () => string | undefined;
  readonly release: () => void;
}

function watch(call: Call): Watched {
  const stop = new AbortController();
  let late: string | undefined;
  const leave = (): void => stop.abort(call.signal?.reason);
  const one = new Watch(call.endsAt, (what) => {
    late = what;
    const message = `The model ${what}. Try again, or allow more time in the models file.`;
    stop.abort(new ModelFailed(message, { retryable: true }));
  });
  call.signal?.addEventListener("abort", leave);
  one.enter("connect_ms", call.isStream ? call.policy.connect_ms : Infinity);
  const release = (): void => {
    one.stop();
    call.signal?.removeEventListener("abort", leave);
  };
  return { watch: one, stop, lateness: () => late, release };
}

async function read(response: Response, call: Call, watched: Watched): Promise<Outcome> {
  const source = sourceOf(response);
  const { status, statusText, headers } = response;
  const { stop, release } = watched;
  const onEnd = (end: End): void => {
    release();
    call.onEnd(end);
  };
  if (!source) {
    if (!response.ok) return { kind: "refused", refusal: refusalOf(response) };
    onEnd("whole");
    return { kind: "begun", response };
  }
  // A body that does not know the signal would wait on.
  stop.signal.addEventListener("abort", () => void source.cancel().catch(() => undefined));
  if (!response.ok) {
    const body = await readSome(source);
    call.signal?.throwIfAborted();
    return { kind: "refused", refusal: refusalOf(response, body) };
  }
  if (!/^text\/event-stream\b/i.test(headers.get("content-type") ?? "")) {
    watched.watch.enter("connect_ms", Infinity);
    const whole = await readWhole(source, stop.signal);
    onEnd("whole");
    return { kind: "begun", response: new Response(whole, { status, statusText, headers }) };
  }
  watched.watch.enter("first_token_ms", call.policy.first_token_ms);
  const head = await readHead(source, stop.signal);
  watched.watch.enter("between_tokens_ms", call.policy.between_tokens_ms);
  watched.watch.heard();
  const isLate = (): boolean => watched.lateness() !== undefined;
  const rest = replay({ head, source, watch: watched.watch, stop, onEnd, isLate });
  return { kind: "begun", response: withBody(response, rest) };
}

/** The answer, or the signal's reason as soon as it aborts; one that comes later is closed. */
async function answerOf(work: Promise<Response>, signal: AbortSignal): Promise<Response> {
  try {
    return await unlessAborted(work, signal);
  } catch (error) {
    void work.then((response) => response.body?.cancel()).catch(() => undefined);
    throw error;
  }
}

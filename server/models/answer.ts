// One streamed answer of a model, whole or not at all. A stream that is cut, stays silent or ends without
// a finish reason is an error: half an answer is never taken for a complete one.
// Messages name the status and what to check; the provider's own words may hold the prompt or the key.
import type { AIMessageChunk } from "@langchain/core/messages";
import { sleep, uptime } from "../clock.ts";
import { AppError, ModelFailed } from "../errors.ts";
import { callContext, refusalBehind } from "./gateway/context.ts";

export interface AnswerOptions {
  /**
   * Longest silence, before the first token or between two, in milliseconds. While the server tries again what has failed
   * in passing, within its own limits, it is not silent.
   */
  readonly silenceMs: number;
  /** Aborts the call; the abort's own reason is thrown then, not a ModelFailed. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * Reads one answer to its end and returns it as one message.
 * @param open starts the call; it must pass the given signal on
 * @example
 * const answer = await streamAnswer((signal) => model.stream(prompt, { ...config, signal }), { silenceMs: 60_000 });
 * @throws ModelFailed when the provider refuses, fails, is silent for too long or stops in the middle
 */
export async function streamAnswer(
  open: (signal: AbortSignal) => Promise<AsyncIterable<AIMessageChunk>>,
  { silenceMs, signal }: AnswerOptions,
): Promise<AIMessageChunk> {
  signal?.throwIfAborted();
  const watch = watchSilence(silenceMs);
  let answer: AIMessageChunk | undefined;
  try {
    const stream = await open(signal ? AbortSignal.any([signal, watch.silent]) : watch.silent);
    for await (const chunk of stream) {
      watch.heard();
      answer = answer ? answer.concat(chunk) : chunk;
    }
    return complete(answer);
  } catch (error) {
    signal?.throwIfAborted();
    if (watch.silent.aborted) throw silence(silenceMs);
    const reason = refusalBehind(error);
    throw reason instanceof AppError ? reason : failure(error, answer !== undefined);
  } finally {
    watch.stop();
  }
}

interface Watch {
  readonly silent: AbortSignal;
  heard(): void;
  stop(): void;
}

/** One timer for the whole answer: it looks again when the silence could have become too long. */
function watchSilence(silenceMs: number): Watch {
  const context = callContext();
  const isTried = (): boolean => (context?.pending ?? 0) > 0;
  const silent = new AbortController();
  const stopped = new AbortController();
  let heardAt = uptime();
  const watch = async (): Promise<void> => {
    for (let left = silenceMs; left > 0; left = heardAt + silenceMs - uptime()) {
      await sleep(left, stopped.signal);
      if (stopped.signal.aborted) return;
      if (isTried()) heardAt = uptime();
    }
    silent.abort();
  };
  void watch();
  return {
    silent: silent.signal,
    heard: () => {
      heardAt = uptime();
    },
    stop: () => stopped.abort(),
  };
}

function complete(answer: AIMessageChunk | undefined): AIMessageChunk {
  const reason: unknown = answer?.response_metadata["finish_reason"];
  if (!answer || !reason) {
    throw new ModelFailed("The model's answer stopped in the middle. Try again.", { retryable: true });
  }
  if (reason === "content_filter") {
    throw new ModelFailed("The model provider withheld the answer (content filter).", { retryable: false });
  }
  return answer;
}

const silence = (silenceMs: number): ModelFailed =>
  new ModelFailed(
    `The model was silent for ${silenceMs} ms (HOLDFAST_MODEL_TIMEOUT_MS). Try again, or allow more time.`,
    { retryable: true },
  );

function failure(error: unknown, hasBegun: boolean): ModelFailed {
  const { status, code, kind } = factsOf(error);
  if (status !== undefined) return refusal(status, code);
  if (kind === "APIConnectionError" && !hasBegun) {
    return new ModelFailed(
      `The model provider cannot be reached${code ? ` (${code})` : ""}. Check OPENAI_BASE_URL and the network.`,
      { retryable: true },
    );
  }
  // The client was never built: the SDK throws its base class only for missing credentials.
  if (kind === "OpenAIError") {
    return new ModelFailed("There is no key for the model provider. Set OPENAI_API_KEY.", {
      retryable: false,
    });
  }
  if (kind === "SyntaxError") {
    return new ModelFailed("The model's stream holds data that is not JSON. Try again.", { retryable: true });
  }
  return new ModelFailed(`The model's stream broke in the middle (${code || kind}). Try again.`, {
    retryable: true,
  });
}

/** What a refusal of the provider means, by its status and code. */
export function refusal(status: number, code: string): ModelFailed {
  const hint =
    status === 401 || status === 403
      ? `The model provider refused the key (HTTP ${status}). Check OPENAI_API_KEY.`
      : status === 404
        ? "The model provider does not know this model or address (HTTP 404). Check HOLDFAST_MODEL and OPENAI_BASE_URL."
        : status === 429
          ? `The model provider's rate or spending limit is reached (HTTP 429${code ? `, ${code}` : ""}). Try again later.`
          : status >= 500
            ? `The model provider failed (HTTP ${status}). Try again later.`
            : `The model provider refused the request (HTTP ${status}${code ? `, ${code}` : ""}).`;
  const isPassing = status === 408 || status === 409 || status === 429 || status >= 500;
  return new ModelFailed(hint, { retryable: isPassing && code !== "insufficient_quota" });
}

interface Facts {
  readonly status: number | undefined;
  /** A short machine word such as ECONNREFUSED or insufficient_quota, or empty. */
  readonly code: string;
  readonly kind: string;
}

/** What may be told of an error: its status, its code and its class. The nearest code of its causes counts. */
export function factsOf(error: unknown): Facts {
  if (!(error instanceof Error)) return { status: undefined, code: "", kind: typeof error };
  const status = "status" in error && typeof error.status === "number" ? error.status : undefined;
  let code = "";
  for (let one: unknown = error; one instanceof Error && code === ""; one = one.cause) {
    const given = "code" in one && typeof one.code === "string" ? one.code : "";
    if (/^[A-Za-z0-9_]{1,40}$/.test(given)) code = given;
  }
  return { status, code, kind: error.constructor.name };
}

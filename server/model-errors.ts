// Failures of models and of what makes vectors. Messages hold nothing of what a provider said: that can hold the prompt
// or the key.
import { AppError } from "./app-error.ts";

/** The model provider refused or failed: wrong key, rate limit, 5xx, a cut or silent stream. */
export class ModelFailed extends AppError {
  readonly code = "model_failed";
  readonly status = 502;
  override readonly retryable: boolean;
  constructor(message: string, options: { retryable: boolean; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.retryable = options.retryable;
  }
}

/** As many calls of a model as this process may make are under way or were made. Nothing was sent to the provider. */
export class ModelBusy extends AppError {
  readonly code = "model_busy";
  readonly status = 503;
  override readonly retryable = true;
  constructor(what: string) {
    super(`Too many calls at a time (${what}). Try again later, or raise the limit in the models file.`);
  }
}

/** What makes vectors for the store failed, or gave what are none. Nothing was written. */
export class EmbeddingFailed extends AppError {
  readonly code = "embedding_failed";
  readonly status = 502;
  override readonly retryable: boolean;
  constructor(message: string, options: { retryable: boolean; cause?: unknown }) {
    super(message, { cause: options.cause });
    this.retryable = options.retryable;
  }
}

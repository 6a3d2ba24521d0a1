// What every failure that a caller can meet has in common.
export abstract class AppError extends Error {
  abstract readonly code: string;
  abstract readonly status: number;
  readonly retryable: boolean = false;
  override get name(): string {
    return this.constructor.name;
  }
  /** The message with what only operators may read. */
  get inFull(): string {
    return this.message;
  }
}

/** The message of anything thrown, for the log and the terminal. */
export const messageOf = (error: unknown): string =>
  error instanceof AppError ? error.inFull : saidOf(error);

/** The same for clients, and for what they can read later. */
export const saidOf = (error: unknown): string => (error instanceof Error ? error.message : String(error));

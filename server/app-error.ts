// What every failure that a caller can meet has in common.
export abstract class AppError extends Error {
  abstract readonly code: string;
  abstract readonly status: number;
  readonly retryable: boolean = false;
  override get name(): string {
    return this.constructor.name;
  }
}

/** The message of anything thrown, for logs and answers. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

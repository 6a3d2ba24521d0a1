// How an operation of the API is described: what it takes, by the very schema that validates it, and what it answers.
import type { z } from "zod";

export interface Described {
  /** The name of the operation in clients that are made from the document. */
  readonly id: string;
  readonly summary: string;
  /** What a reader must know beyond names and types. */
  readonly about?: string;
  readonly query?: z.ZodObject;
  /** Request headers that change what happens. */
  readonly headers?: readonly RequestHeader[];
  readonly body?: z.ZodType;
  readonly answers: Readonly<Record<number, Answer>>;
  /** Codes of errors by status, beyond those that every route with such input has. */
  readonly errors?: Readonly<Record<number, readonly string[]>>;
  /** Whether it answers without the database. */
  readonly isBare?: boolean;
}

export type RequestHeader = "Idempotency-Key" | "Last-Event-ID" | "Prefer";
export type AnswerHeader = "Content-Location" | "Location" | "X-Pagination-Total" | "X-Pagination-Next";

export interface Answer {
  readonly about: string;
  readonly type?: string;
  readonly schema?: z.ZodType;
  readonly headers?: readonly AnswerHeader[];
}

/** The operations of one noun, by method and path as the route has them: "GET /threads/:thread". */
export interface Noun {
  readonly tag: string;
  readonly about: string;
  readonly operations: Readonly<Record<string, Described>>;
}

export const json = (
  schema: z.ZodType,
  about: string,
  headers: readonly AnswerHeader[] = [],
): { 200: Answer } => ({
  200: { about, type: "application/json", schema, headers },
});

export const nothing: { 204: Answer } = { 204: { about: "Done; there is no body." } };

/** The headers of one page of many. */
export const PAGED: readonly AnswerHeader[] = ["X-Pagination-Total", "X-Pagination-Next"];

// Streams in a form that can be compared to the letter: numbers are checked, and what is different each time gets a name.
import { expect } from "vitest";
import { collect } from "./server.ts";
import type { Frame } from "./server.ts";

const MADE = /[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}|\b[\da-f]{32}\b/g;

/** Each id that somebody made becomes #1, #2 … in the order in which they come up. */
export function withNames<T>(value: T): T {
  const names = new Map<string, string>();
  const nameOf = (id: string): string => {
    if (!names.has(id)) names.set(id, `#${names.size + 1}`);
    return names.get(id) ?? id;
  };
  return JSON.parse(JSON.stringify(value).replaceAll(MADE, nameOf)) as T;
}

/** What a stream tells after its metadata, as pairs of event and data; its numbers are 0, 1, 2 … without a gap. */
export async function told(stream: AsyncIterable<Frame>): Promise<[string, unknown][]> {
  const [first, ...frames] = await collect(stream);
  expect([first, ...frames].map((frame) => frame?.id)).toEqual([first, ...frames].map((_, n) => String(n)));
  expect(first).toMatchObject({ event: "metadata", data: { attempt: 1 } });
  return withNames(frames.map(({ event, data }) => [event, data]));
}

// Every law has a test that bears its name, and those of both clients run with both.
import { globSync, readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { LAWS } from "./laws.ts";

const files = globSync("test/**/*.test.ts").map((file) => readFileSync(file, "utf8"));

// A test that is skipped or marked in another way has a word before its bracket, and is not found.
const TESTS = /(describe\.each\(SDKS\)\("SDK \$sdk", \(sdk\) => \{\s*)?\btest\(\s*"([^"]+)",/g;

/** Whether both clients run it, for each test of this name. */
const testsOf = (law: string): boolean[] =>
  files.flatMap((source) =>
    [...source.matchAll(TESTS)].filter(([, , name]) => name === law).map(([, both]) => both !== undefined),
  );

test.each(LAWS)("a law is a test: $law", ({ law, both = false }) => {
  expect(testsOf(law)).toContain(both);
});

// Every failure has a stable code, one status, and a section that tells what to do.
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";

const source = ["errors", "access-errors", "graph-errors", "model-errors"]
  .map((name) => readFileSync(`server/${name}.ts`, "utf8"))
  .join("\n");
const page = readFileSync("docs/errors.md", "utf8");
const classes = source.split(/^export (?:abstract )?class /m).slice(1);
const declared = classes.flatMap((text) => {
  const code = /readonly code = "(\w+)"/.exec(text)?.[1];
  const statuses = /readonly status(?:: ([\d |]+)| = (\d+))/.exec(text);
  return code
    ? [{ code, statuses: (statuses?.[1] ?? statuses?.[2] ?? "").split("|").map((one) => one.trim()) }]
    : [];
});
const sections = new Map(
  page
    .split(/^## /m)
    .slice(1)
    .map((section) => [section.split("\n")[0]?.replaceAll("`", "").trim() ?? "", section]),
);

test("codes are unique", () => {
  const codes = declared.map(({ code }) => code);
  expect(new Set(codes).size).toBe(codes.length);
  expect(codes.length).toBeGreaterThan(15);
});

test.each(declared)("$code has a section with its status", ({ code, statuses }) => {
  const section = sections.get(code);
  expect(section, `docs/errors.md has no section "## ${code}"`).toBeDefined();
  for (const status of statuses) expect(section).toContain(`HTTP ${status}`);
});

test("no section is about a code that does not exist", () => {
  const codes = new Set(declared.map(({ code }) => code));
  const unknown = [...sections.keys()].filter(
    (title) => /^[a-z]+(_[a-z]+)+$/.test(title) && !codes.has(title),
  );
  expect(unknown).toEqual([]);
});

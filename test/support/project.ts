// A folder with a langgraph.json of its own, which names fixtures; gone when the test file ends.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { afterAll } from "vitest";

const GRAPHS = {
  echo: "graphs.ts:echo",
  endless: "graphs.ts:endless",
  asking: "modes.ts:asking",
  questioning: "graphs.ts:asking",
  talking: "modes.ts:talking",
  who: "who.ts:who",
  patient: "who.ts:patient",
  made: "who.ts:madeFor",
};

export function makeProject(parts: { http?: object; auth?: { path: string }; store?: object }): {
  folder: string;
  path: string;
} {
  const folder = mkdtempSync(join(tmpdir(), "holdfast-project-"));
  afterAll(() => rmSync(folder, { recursive: true }));
  const graphs = Object.fromEntries(
    Object.entries(GRAPHS).map(([id, spec]) => [id, resolve("test/fixtures", spec)]),
  );
  const path = join(folder, "langgraph.json");
  writeFileSync(path, JSON.stringify({ graphs, ...parts }));
  return { folder, path };
}

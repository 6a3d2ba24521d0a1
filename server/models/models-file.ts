// The operator's file of models (HOLDFAST_MODELS): what it may say, and that it makes sense. A wrong file stops the
// start with one sentence that names the place in it.
import { readFileSync } from "node:fs";
import { z } from "zod";
import { ConfigInvalid, messageOf } from "../errors.ts";
import { policyFields } from "./resilience/policy.ts";

/** US dollars for a million tokens, to the millionth of a dollar. */
const dollars = z.number().min(0).max(1_000_000).multipleOf(0.000001, "has more than six decimals");
const name = z.string().min(1).max(200);

const entrySchema = z.strictObject({
  ...policyFields,
  price: z.strictObject({ input: dollars, cached: dollars.optional(), output: dollars }).optional(),
  encoding: z.enum(["o200k_base", "cl100k_base"]).optional(),
  max_output_tokens: z.int().min(1).max(10_000_000).optional(),
  fallback: z.array(name).max(10).optional(),
});

const fileSchema = z.strictObject({
  defaults: z.strictObject(policyFields).default({}),
  models: z.record(name, entrySchema).default({}),
  route: z
    .array(
      z.strictObject({
        from: name,
        to: name,
        max_prompt_tokens: z.int().min(1).optional(),
        tools: z.boolean().optional(),
      }),
    )
    .default([]),
});

export type ModelsFile = z.output<typeof fileSchema>;
export type ModelEntry = z.output<typeof entrySchema>;

/**
 * Reads and checks the file; without one, nothing is said of any model.
 * @throws ConfigInvalid when it cannot be read, says what it may not, or leads round in a circle
 */
export function readModelsFile(path: string | undefined): ModelsFile {
  if (path === undefined) return fileSchema.parse({});
  const result = fileSchema.safeParse(parse(path));
  if (!result.success) {
    const [issue] = result.error.issues;
    throw wrong(path, `${issue?.path.join(".") || "the file"}: ${issue?.message ?? "is wrong"}`);
  }
  const { models, route } = result.data;
  const fallbacks = Object.entries(models).map(([from, { fallback = [] }]) => ({ from, to: fallback }));
  refuseCircle(path, "fallback", fallbacks, (key, model) => key === model);
  const routes = route.map(({ from, to }) => ({ from, to: [to] }));
  refuseCircle(path, "route", routes, matches);
  return result.data;
}

/** Whether a key of the file means a model: the name itself, or its beginning before a `*`. */
export const matches = (key: string, model: string): boolean =>
  key.endsWith("*") ? model.startsWith(key.slice(0, -1)) : key === model;

function parse(path: string): unknown {
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch (error) {
    throw new ConfigInvalid(`HOLDFAST_MODELS names ${path}, which cannot be read: ${messageOf(error)}.`);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw wrong(path, `it is not JSON: ${messageOf(error)}`);
  }
}

const wrong = (path: string, what: string): ConfigInvalid =>
  new ConfigInvalid(`HOLDFAST_MODELS names ${path}, which is wrong: ${what}.`);

interface Edge {
  readonly from: string;
  readonly to: readonly string[];
}
type IsMeant = (key: string, model: string) => boolean;

/** A circle is never walked, because each request moves once; but nobody means one. */
function refuseCircle(path: string, what: string, edges: readonly Edge[], isMeant: IsMeant): void {
  const done = new Set<Edge>();
  const walk = (edge: Edge, way: readonly Edge[]): void => {
    if (way.includes(edge))
      throw wrong(
        path,
        `${what} leads from ${edge.from} back to it (${way.map(({ from }) => from).join(", ")})`,
      );
    if (done.has(edge)) return;
    for (const model of edge.to)
      for (const next of edges) if (isMeant(next.from, model)) walk(next, [...way, edge]);
    done.add(edge);
  };
  for (const edge of edges) walk(edge, []);
}

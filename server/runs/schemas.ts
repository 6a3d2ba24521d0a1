// JSON schemas of a graph, for Studio and for clients. A graph that declares none answers what its source says, or null.
import {
  getConfigTypeSchema,
  getInputTypeSchema,
  getOutputTypeSchema,
  getStateTypeSchema,
} from "@langchain/langgraph/zod/schema";
import type { Engine } from "./engine.ts";
import type { Graph } from "./graph/graph.ts";
import type { StaticSchema } from "./graph/static-schemas.ts";

export interface GraphSchemas {
  readonly input_schema: object | null;
  readonly output_schema: object | null;
  readonly state_schema: object | null;
  readonly config_schema: object | null;
  readonly context_schema: object | null;
}

type SubgraphSchemas = Readonly<Record<"state" | "input" | "output" | "config", object | null>>;

interface StateSchemaLike {
  getJsonSchema(): object;
  getInputJsonSchema(): object;
}

/** Schemas of the graph that a graph id names. */
export async function schemasOf(
  { staticSchemas }: Pick<Engine, "staticSchemas">,
  graphId: string,
  graph: Graph,
): Promise<GraphSchemas> {
  return wholeOf(declaredBy(graph), async () => (await staticSchemas(graphId)).get(""));
}

/** What a graph declares; where that is nothing of its state, what its source says, but for what it declares beside. */
async function wholeOf(
  declared: GraphSchemas,
  read: () => Promise<StaticSchema | undefined>,
): Promise<GraphSchemas> {
  if (!isUndeclared(declared)) return declared;
  const said = told(await read());
  const config = declared.config_schema ?? said.config_schema;
  return { ...said, config_schema: config, context_schema: config };
}

const isUndeclared = ({
  state_schema: state,
  input_schema: input,
  output_schema: output,
}: GraphSchemas): boolean => state === null && input === null && output === null;

function told({ state, input, output, config }: StaticSchema = {}): GraphSchemas {
  return {
    input_schema: input ?? null,
    output_schema: output ?? null,
    state_schema: state ?? null,
    config_schema: config ?? null,
    context_schema: config ?? null,
  };
}

function declaredBy(graph: Graph): GraphSchemas {
  const config = attempt(() => getConfigTypeSchema(graph));
  const declared = stateSchemaOf(graph);
  const state = declared ? attempt(() => declared.getJsonSchema()) : attempt(() => getStateTypeSchema(graph));
  const input = declared ? attempt(() => declared.getInputJsonSchema()) : undefined;
  return {
    input_schema: input ?? attempt(() => getInputTypeSchema(graph)),
    output_schema: attempt(() => getOutputTypeSchema(graph)) ?? state,
    state_schema: state,
    config_schema: config,
    context_schema: config,
  };
}

/** Schemas of the graphs inside a graph, or of the one in a namespace such as `parent|child`. */
export async function subgraphSchemasOf(
  { staticSchemas }: Pick<Engine, "staticSchemas">,
  graphId: string,
  graph: Graph,
  namespace: string | undefined,
  recurse: boolean,
): Promise<Record<string, SubgraphSchemas>> {
  const found: Record<string, SubgraphSchemas> = {};
  for await (const [name, subgraph] of graph.getSubgraphsAsync(namespace, recurse)) {
    const schemas = await wholeOf(declaredBy(subgraph), async () => (await staticSchemas(graphId)).get(name));
    found[name] = {
      state: schemas.state_schema,
      input: schemas.input_schema,
      output: schemas.output_schema,
      config: schemas.config_schema,
    };
  }
  return found;
}

/** The StateSchema object that a graph was built with, if it was. */
function stateSchemaOf(graph: Graph): StateSchemaLike | undefined {
  const builder: unknown = Reflect.get(graph, "builder");
  if (typeof builder !== "object" || builder === null) return undefined;
  const schema: unknown = Reflect.get(builder, "_schemaRuntimeDefinition");
  const isStateSchema =
    typeof schema === "object" &&
    schema !== null &&
    "getJsonSchema" in schema &&
    "getInputJsonSchema" in schema;
  // Both methods were just seen; StateSchema declares them without arguments.
  return isStateSchema ? (schema as StateSchemaLike) : undefined;
}

// A schema of a kind that has no JSON form is no reason to fail: the client then shows plain fields.
function attempt(make: () => object | undefined): object | null {
  try {
    return make() ?? null;
  } catch {
    return null;
  }
}

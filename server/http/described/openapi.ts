// The OpenAPI document: the routes that the app has, as described/ says what they take and answer. What a route takes is
// shown by the schema that validates it. A route that nobody described still stands in the document, by its path alone;
// a test refuses that.
import { z } from "zod";
import * as forms from "./answers.ts";
import { assistants } from "./assistants.ts";
import { budgets } from "./budgets.ts";
import { components } from "./components.ts";
import { crons } from "./crons.ts";
import type { Answer, AnswerHeader, Described, Noun, RequestHeader } from "./describe.ts";
import { protocol } from "./protocol.ts";
import { runs } from "./runs.ts";
import { server } from "./server.ts";
import { store } from "./store.ts";
import { threads } from "./threads.ts";

type Json = Record<string, unknown>;

/** What is described, whether the app has a route for it or not. */
export const nouns: readonly Noun[] = [
  server,
  assistants,
  threads,
  runs,
  protocol,
  crons,
  store,
  budgets,
  components,
];

const UUID = { type: "string", format: "uuid" };
const TEXT = { type: "string" };

/** The parameters of paths: their names in the document, and what they are. */
const PLACES: Readonly<Record<string, { name: string; schema: object; description: string }>> = {
  assistant: {
    name: "assistant_id",
    schema: TEXT,
    description: "The id of an assistant, or of a graph, which names the graph's own assistant.",
  },
  thread: { name: "thread_id", schema: UUID, description: "The id of a thread." },
  run: { name: "run_id", schema: UUID, description: "The id of a run." },
  checkpoint: { name: "checkpoint_id", schema: UUID, description: "The id of a checkpoint of the thread." },
  budget: { name: "budget_id", schema: UUID, description: "The id of a budget." },
  cron: { name: "cron_id", schema: UUID, description: "The id of a cron." },
  namespace: { name: "namespace", schema: TEXT, description: "The namespace of a subgraph, such as a|b." },
};

const ASKED: Readonly<Record<RequestHeader, string>> = {
  "Idempotency-Key":
    "At most 255 characters. A second request with the same key on the same thread gets the run of the first.",
  "Last-Event-ID":
    "The id of the last event the client has; the stream goes on after it. -1 or nothing: all.",
  Prefer: "`return=minimal` answers 204 without a body.",
};

const TOLD: Readonly<Record<AnswerHeader, { schema: object; description: string }>> = {
  "Content-Location": { schema: TEXT, description: "The path of the run." },
  Location: { schema: TEXT, description: "Where its stream goes on if this connection breaks." },
  "X-Pagination-Total": { schema: { type: "integer" }, description: "How many there are on all pages." },
  "X-Pagination-Next": {
    schema: { type: "integer" },
    description: "The next offset; only if there is more.",
  },
};

const ERRORS: Readonly<Record<string, string>> = {
  400: "The request is not what this route takes: a sentence, or the issues of its body or query.",
  401: "The auth of langgraph.json does not let the caller in, with the status and words that it chose.",
  403: "The auth of langgraph.json does not allow this.",
  404: "Not there.",
  409: "Not possible as things are now.",
  413: "The body is larger than HOLDFAST_MAX_BODY_BYTES.",
  422: "Understood and refused.",
  426: "Only for a WebSocket.",
  429: "Too many already.",
  500: "A failure of this server, or a stored value that it cannot read.",
  503: "The database or this server does not take requests now: send it again.",
};

/** What any route may answer that needs more than this process. */
const EVERYWHERE: Readonly<Record<number, readonly string[]>> = {
  401: ["auth_refused"],
  403: ["access_denied"],
  429: ["rate_limited"],
  500: ["internal", "value_unreadable", "auth_invalid", "custom_app_failed"],
  503: ["database_unavailable"],
};

const ABOUT = [
  "The HTTP API of Holdfast: the LangGraph server API under the same paths and with the same bodies, so that the official",
  "SDK works unchanged. Unknown keys are ignored, and `null` counts as unset. An error is plain text with the message",
  "alone; its stable code is in the header `X-Holdfast-Code`.",
].join(" ");

/**
 * The OpenAPI 3.1 document of an app.
 * @param routes those of the app; middleware among them is passed over
 */
export function documentOf(routes: readonly { method: string; path: string }[], version: string): Json {
  const served = new Set(routes.map(({ method, path }) => `${method} ${path}`));
  const described = new Map(
    nouns.flatMap(({ tag, operations }) =>
      Object.entries(operations)
        .filter(([route]) => served.has(route))
        .map(([route, operation]) => [route, { tag, operation }] as const),
    ),
  );
  const schemas = schemasOf([...described.values()].map(({ operation }) => operation));
  const paths: Record<string, Json> = {};
  for (const { method, path } of routes) {
    if (method === "ALL") continue;
    const found = described.get(`${method} ${path}`);
    const shown = path.replaceAll(/:(\w+)/g, (_, name: string) => `{${PLACES[name]?.name ?? name}}`);
    const operation = found
      ? { tags: [found.tag], ...operationOf(found.operation, schemas, path) }
      : bare(path);
    paths[shown] = { ...paths[shown], [method.toLowerCase()]: operation };
  }
  return {
    openapi: "3.1.1",
    info: {
      title: "Holdfast",
      version,
      description: ABOUT,
      license: { name: "Apache-2.0", identifier: "Apache-2.0" },
    },
    servers: [{ url: "/", description: "This server." }],
    security: [],
    tags: nouns
      .filter((noun) => [...described.values()].some(({ tag }) => tag === noun.tag))
      .map(({ tag, about }) => ({ name: tag, description: about })),
    paths,
    components: { schemas: schemas.components },
  };
}

interface Schemas {
  readonly components: Json;
  refTo(schema: z.ZodType): Json;
}

/** Every body and answer under a name of its own, so that each is written once. */
function schemasOf(operations: readonly Described[]): Schemas {
  const [taken, given] = [z.registry<{ id: string }>(), z.registry<{ id: string }>()];
  const names = new Map<z.ZodType, string>();
  const name = (registry: typeof taken, schema: z.ZodType, id: string): void => {
    if (names.has(schema)) return;
    names.set(schema, id);
    registry.add(schema, { id });
  };
  for (const [id, form] of Object.entries(forms)) name(given, form, id);
  for (const { id, body, answers } of operations) {
    const own = `${id.charAt(0).toUpperCase()}${id.slice(1)}`;
    if (body) name(taken, body, `${own}Request`);
    for (const { schema } of Object.values(answers)) if (schema) name(given, schema, `${own}Response`);
  }
  return {
    components: { ...componentsOf(taken, "input"), ...componentsOf(given, "output") },
    refTo: (schema) => ({ $ref: uri(names.get(schema) ?? "") }),
  };
}

const uri = (id: string): string => `#/components/schemas/${id}`;

function componentsOf(registry: ReturnType<typeof z.registry<{ id: string }>>, io: "input" | "output"): Json {
  const { schemas } = z.toJSONSchema(registry, { uri, io, unrepresentable: "any", override: plain });
  return Object.fromEntries(
    Object.entries(schemas).map(([id, { $id: _id, $schema: _schema, ...schema }]) => [id, schema]),
  );
}

/** Every key of an object is a text: nobody needs to be told. */
function plain({ jsonSchema }: { jsonSchema: z.core.JSONSchema.BaseSchema }): void {
  delete jsonSchema.propertyNames;
}

function operationOf(described: Described, schemas: Schemas, path: string): Json {
  const { id, summary, about, query, headers = [], body } = described;
  const parameters = [
    ...placesIn(path),
    ...(query ? asked(query) : []),
    ...headers.map((name) => ({ name, in: "header", description: ASKED[name], schema: TEXT })),
  ];
  return {
    operationId: id,
    summary,
    ...(about ? { description: about } : {}),
    ...(parameters.length > 0 ? { parameters } : {}),
    ...(body ? { requestBody: bodyOf(body, schemas) } : {}),
    responses: {
      ...Object.fromEntries(
        Object.entries(described.answers).map(([status, answer]) => [status, answerOf(answer, schemas)]),
      ),
      ...errorsOf(described, schemas, path),
    },
  };
}

const bare = (path: string): Json => ({
  summary: "Not described yet.",
  parameters: placesIn(path),
  responses: { default: { description: "Not described yet." } },
});

const placesIn = (path: string): Json[] =>
  [...path.matchAll(/:(\w+)/g)].map(([, name = ""]) => {
    const { name: shown = name, schema = TEXT, description } = PLACES[name] ?? {};
    return { name: shown, in: "path", required: true, description, schema };
  });

function asked(query: z.ZodObject): Json[] {
  const { properties = {}, required = [] } = z.toJSONSchema(query, {
    io: "input",
    unrepresentable: "any",
    override: plain,
  });
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    in: "query",
    required: required.includes(name),
    schema: withoutNull(schema),
  }));
}

/** A query has no way to say null. */
function withoutNull(schema: z.core.JSONSchema._JSONSchema): object {
  if (typeof schema !== "object") return {};
  const { anyOf, type, ...rest } = schema;
  const others = anyOf?.filter((one) => typeof one !== "object" || one.type !== "null");
  const [only] = others ?? [];
  if (others?.length === 1 && only !== undefined) return { ...rest, ...withoutNull(only) };
  const types = Array.isArray(type) ? type.filter((one) => one !== "null") : type;
  return { ...rest, ...(others ? { anyOf: others } : {}), ...(types === undefined ? {} : { type: types }) };
}

function bodyOf(body: z.ZodType, schemas: Schemas): Json {
  return {
    // No body at all is read as {}.
    required: !body.safeParse({}).success,
    content: { "application/json": { schema: schemas.refTo(body) } },
  };
}

function answerOf({ about, type, schema, headers = [] }: Answer, schemas: Schemas): Json {
  return {
    description: about,
    ...(headers.length > 0 ? { headers: Object.fromEntries(headers.map((name) => [name, TOLD[name]])) } : {}),
    ...(type && schema ? { content: { [type]: { schema: schemas.refTo(schema) } } } : {}),
  };
}

function errorsOf({ body, query, errors, isBare }: Described, schemas: Schemas, path: string): Json {
  const isChecked = body !== undefined || query !== undefined || placesIn(path).length > 0;
  const all: Record<string, readonly string[]> = {
    ...(isChecked ? { 400: ["input_invalid"] } : {}),
    ...(body ? { 413: ["body_too_large"], 422: ["poisoned_input"] } : {}),
    ...(isBare ? {} : EVERYWHERE),
  };
  for (const [status, codes] of Object.entries(errors ?? {})) {
    all[status] = [...(all[status] ?? []), ...codes];
  }
  return Object.fromEntries(
    Object.entries(all).map(([status, codes]) => [
      status,
      {
        description: ERRORS[status] ?? "Refused.",
        headers: { "X-Holdfast-Code": { description: "What it is.", schema: { ...TEXT, enum: codes } } },
        content: {
          "text/plain": { schema: TEXT },
          ...(status === "400"
            ? { "application/json": { schema: schemas.refTo(forms.ValidationError) } }
            : {}),
        },
      },
    ]),
  );
}

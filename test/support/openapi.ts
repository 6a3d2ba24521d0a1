// The served OpenAPI document as tests use it: its operations, and whether an answer is one of those it promises.
import { Ajv2020 } from "ajv/dist/2020.js";
import type { ValidateFunction } from "ajv/dist/2020.js";

export type JsonSchema = Readonly<Record<string, unknown>>;

interface Parameter {
  readonly name: string;
  readonly in: "path" | "query" | "header";
  readonly required?: boolean;
  readonly schema: JsonSchema;
}

interface Promised {
  readonly headers?: Readonly<Record<string, { schema: JsonSchema }>>;
  readonly content?: Readonly<Record<string, { schema: JsonSchema }>>;
}

export interface Operation {
  /** "GET /threads/{thread_id}" */
  readonly name: string;
  readonly method: string;
  readonly path: string;
  readonly operationId: string | undefined;
  readonly parameters: readonly Parameter[];
  readonly body: JsonSchema | undefined;
  readonly responses: Readonly<Record<string, Promised>>;
}

export interface Document {
  readonly openapi: string;
  readonly info: { readonly version: string };
  readonly paths: Readonly<Record<string, Readonly<Record<string, RawOperation>>>>;
  readonly components: { readonly schemas: Readonly<Record<string, JsonSchema>> };
}

interface RawOperation {
  readonly operationId?: string;
  readonly parameters?: readonly Parameter[];
  readonly requestBody?: { readonly content: { readonly "application/json": { schema: JsonSchema } } };
  readonly responses: Readonly<Record<string, Promised>>;
}

export const fetchDocument = async (url: string): Promise<Document> =>
  // The test that lints it says whether it is one.
  (await (await fetch(`${url}/openapi.json`)).json()) as Document;

export const operationsOf = (document: Document): Operation[] =>
  Object.entries(document.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, raw]) => ({
      name: `${method.toUpperCase()} ${path}`,
      method: method.toUpperCase(),
      path,
      operationId: raw.operationId,
      parameters: raw.parameters ?? [],
      body: raw.requestBody?.content["application/json"].schema,
      responses: raw.responses,
    })),
  );

export interface Answered {
  readonly status: number;
  readonly headers: Headers;
  /** Undefined when the client left before the end; of a stream, what came until then. */
  readonly text: string | undefined;
  readonly isCut: boolean;
}

const FORMATS = {
  uuid: /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/,
  "date-time": /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)$/,
};

/** Says what is wrong with an answer; undefined when the document promises it. */
export function judgeOf(document: Document): (operation: Operation, answer: Answered) => string | undefined {
  const ajv = new Ajv2020({ strict: true, allowUnionTypes: true, formats: FORMATS });
  for (const [name, schema] of Object.entries(document.components.schemas))
    ajv.addSchema(linked(schema), name);
  const validators = new Map<string, ValidateFunction>();
  const validatorOf = (schema: JsonSchema): ValidateFunction => {
    const key = JSON.stringify(schema);
    const validator = validators.get(key) ?? ajv.compile(linked(schema));
    validators.set(key, validator);
    return validator;
  };
  return (operation, { status, headers, text }) => {
    const promised = operation.responses[String(status)];
    if (!promised) return `status ${status} is not documented`;
    for (const [name, { schema }] of Object.entries(promised.headers ?? {})) {
      const value = headers.get(name);
      if (name === "X-Pagination-Next" && value === null) continue;
      if (value === null) return `header ${name} is missing: null`;
      const isRight = validatorOf(schema)(schema["type"] === "integer" ? Number(value) : value);
      if (!isRight) return `header ${name}: ${value} is not ${JSON.stringify(schema)}`;
    }
    const type = headers.get("content-type")?.split(";")[0];
    if (!promised.content) return text === undefined || text === "" ? undefined : "it has a body";
    const content = promised.content[type ?? ""];
    if (!content) return `content type ${type} is not documented for ${status}`;
    if (text === undefined) return undefined;
    if (type === "text/event-stream") return faultOfStream(text);
    const value: unknown = type === "application/json" ? JSON.parse(text) : text;
    const validate = validatorOf(content.schema);
    if (validate(value)) return undefined;
    return `${ajv.errorsText(validate.errors)} in ${text.slice(0, 600)}`;
  };
}

/** References lead to the schemas by their names alone. */
const linked = (schema: JsonSchema): JsonSchema =>
  JSON.parse(JSON.stringify(schema).replaceAll("#/components/schemas/", "")) as JsonSchema;

/** A stream is frames of three lines, numbered upwards, and heartbeats. */
function faultOfStream(text: string): string | undefined {
  let last = [-1, -1];
  const frames = text.replaceAll(/^:.*\n/gm, "").split("\n\n");
  for (const frame of frames.slice(0, -1)) {
    const [, data = "", id = ""] = /^event: \S+\ndata: (.+)\nid: (\d+(?:-\d+)?)$/.exec(frame) ?? [];
    if (data === "") return `not a frame: ${frame.slice(0, 200)}`;
    JSON.parse(data);
    const place = id.split("-").map(Number);
    if (!isBehind(last, place)) return `frame ${id} after ${last.join("-")}`;
    last = place;
  }
  return undefined;
}

const isBehind = ([first = 0, second = 0]: number[], [major = 0, minor = 0]: number[]): boolean =>
  major > first || (major === first && minor > second);

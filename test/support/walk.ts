// Requests made from the OpenAPI document by chance: right ones, which use what earlier answers named, and broken ones.
import type { Random } from "../../server/commands/chaos/random.ts";
import type { JsonSchema, Operation } from "./openapi.ts";

/** A request, and the thread it is about. */
export interface Request {
  readonly method: string;
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly thread: string;
}

const GRAPHS = [
  "keeping",
  "keeping",
  "keeping",
  "echo",
  "failing",
  "asking",
  "parallel",
  "nested",
  "endless",
];
const NEW_ID = "0190a000-0000-7000-8000-000000000000";
const TEXTS = [
  "",
  "a",
  "values",
  "go",
  "0",
  "-1",
  "über",
  "💥",
  "a b",
  "x".repeat(300),
  "null",
  "../x",
  "%00",
  "'\"--",
];
const ODD: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  0.5,
  1e308,
  2 ** 53,
  -(2 ** 63),
  "",
  "a\0b",
  "\ud800",
  "💥",
  "x".repeat(5000),
  [],
  [null],
  {},
  { "": null },
  { constructor: { prototype: 1 } },
  { toString: 1 },
  { lc: 1, type: "constructor", id: ["a", "B"], kwargs: {} },
  Array.from({ length: 30 }).reduce<unknown>((inner) => [inner], 1),
];
/** Values that a route can do something with, by the name of the field. */
const KNOWN: Readonly<Record<string, readonly unknown[]>> = {
  graph_id: GRAPHS,
  stream_mode: ["values", "updates", "messages-tuple", ["values", "custom"], "debug", "events", "lifecycle"],
  as_node: ["keep", "ask", "__start__", "prepare", "nobody"],
  method: [
    "run.start",
    "run.start",
    "state.get",
    "state.listCheckpoints",
    "agent.getTree",
    "input.respond",
    "state.fork",
  ],
  params: [
    { assistant_id: "keeping", input: { value: 1 } },
    { assistant_id: "keeping", input: { value: 1 }, keys: ["value"], limit: 2 },
    { assistant_id: "asking", input: null, config: { configurable: { checkpoint_id: NEW_ID } } },
    { checkpoint_id: NEW_ID, interrupt_id: "0", response: 1, strict_resume: true },
    { namespace: ["a:b"], keys: 1, before: "x" },
  ],
  channels: [["values", "lifecycle"], ["messages"], ["nothing"], []],
  namespaces: [[], [[]], [["answer"]], ["a"]],
  since: [0, 1, 2 ** 26, 2 ** 60],
  since_event_id: ["1-1", "synth:x:5", "x"],
  schedule: ["0 0 1 1 *", "* * * * *", "@daily", "0 0 30 2 *", "nonsense", "61 * * * *"],
  timezone: ["Europe/Berlin", "UTC", "Mars/Base", null],
  end_time: ["2099-01-01T00:00:00Z", "2000-01-01T00:00:00Z", "9999-12-31T23:59:59"],
  webhook: ["/hook", "http://127.0.0.1:9/", "ftp://x", "not a url", "http://u:p@localhost/"],
  after_seconds: [0, 0, 0.01, 1000],
  namespace: [["a"], ["a", "b"], ["users", "42"], "a", "a.b", [""], ["a.b"], []],
  namespace_prefix: [[], ["a"], ["users"]],
  prefix: [["a"], ["*"], []],
  key: ["k", "k2", "über", "a\0"],
  filter: [{}, { n: 1 }, { n: { $gt: 0 } }, { n: { $no: 1 } }, { n: null }],
  query: ["find", "", null],
  select: [["thread_id", "values"], ["values.value"], ["next"], ["nothing"], []],
  extract: [{ a: "values.value" }, { a: "values[0][-1].x", b: "metadata" }, { a: "nowhere.x" }],
  xray: ["1", "true", "0"],
  ttl: [1, { ttl: 5, strategy: "keep_latest" }, 0.001],
  interrupt_before: ["*", ["keep"], ["nobody"], []],
  limit: [1, 2, 10, 1000],
  offset: [0, 0, 1, 1_000_000_000],
  metadata: [
    {},
    { user: "u" },
    { graph_id: "keeping" },
    { graph_id: "gone" },
    { graph_id: { toString: 1 }, thread_id: "x" },
  ],
  command: [
    { resume: "yes" },
    { goto: "keep" },
    { update: { value: 1 } },
    { goto: [{ node: "keep", input: {} }] },
    { goto: { node: "constructor", input: {} } },
    { update: [[{ toString: 1 }, 1]] },
  ],
  config: [{}, { configurable: { a: 1 } }, { recursion_limit: 9, tags: ["a"] }],
  values: [
    { value: 1 },
    { count: 2 },
    null,
    { messages: [{ role: "user", content: "hi" }] },
    [["value", 2]],
    "text",
  ],
  input: [
    { value: 1 },
    { value: 2 },
    null,
    { messages: [{ role: "user", content: "hi" }] },
    "text",
    { unknown: 1 },
    [1],
  ],
  "Last-Event-ID": ["-1", "0", "3", "999999999", "abc", ""],
  "Idempotency-Key": ["one", "two", "x".repeat(300)],
  Prefer: ["return=minimal", "respond-async"],
  max: [1000, 1000, 20, 0, -1, 0.5],
  scope_id: ["u", "u2", "u3", "*"],
  from: ["2020-01-01T00:00:00Z", "yesterday"],
  to: ["2099-01-01T00:00:00Z", "2099-01-01"],
};
const BROKEN_BODIES = [
  "",
  " ",
  "{",
  "null",
  "[]",
  '"text"',
  "5",
  '{"__proto__":{}}',
  "\u{feff}{}",
  `[${"[".repeat(120)}${"]".repeat(121)}`,
];

type Named = Readonly<Record<string, unknown>>;
const IDS = new Set(["thread_id", "run_id", "assistant_id", "checkpoint_id", "cron_id", "budget_id"]);
const UUID = /^[\da-f-]{36}$/i;
const OF_THREADS = ["run_id", "checkpoint_id"];

/** What the walk has seen: ids by what they name, the newest last, and which runs and checkpoints a thread has. */
export class Seen {
  readonly #ids = new Map<string, string[]>();

  /** Notes every id in an answer. */
  note(value: unknown): void {
    if (Array.isArray(value)) for (const item of value) this.note(item);
    else if (typeof value === "object" && value !== null) this.#noteOf(value as Named);
  }

  #noteOf(named: Named): void {
    for (const [name, value] of Object.entries(named)) {
      if (typeof value !== "string" || !IDS.has(name) || !UUID.test(value)) this.note(value);
      else {
        this.#keep(name, value);
        const thread = named["thread_id"];
        if (OF_THREADS.includes(name) && typeof thread === "string")
          this.#keep(`${name} of ${thread}`, value);
      }
    }
  }

  #keep(name: string, id: string): void {
    const known = this.#ids.get(name) ?? [];
    if (!known.includes(id)) this.#ids.set(name, [...known, id].slice(-30));
  }

  /** A run of this thread goes on. */
  noteLive(thread: string): void {
    this.#keep("live", thread);
  }

  /** A thread that is gone is not asked about again. */
  forget(thread: string): void {
    const known = this.#ids.get("thread_id") ?? [];
    this.#ids.set(
      "thread_id",
      known.filter((id) => id !== thread),
    );
  }

  /** An id of this kind, mostly a new one; of this thread, as a rule. */
  pick(random: Random, name: string, thread?: string): string {
    const own = thread && random.chance(0.85) ? this.#ids.get(`${name} of ${thread}`) : undefined;
    const known = own ?? this.#ids.get(name) ?? [];
    return random.chance(0.5) ? (known.at(-1) ?? NEW_ID) : random.pick([...known, ...(own ? [] : [NEW_ID])]);
  }

  /** A thread, one that has such a thing if one is asked for. */
  thread(random: Random, owning: string | undefined): string {
    const threads = (this.#ids.get("thread_id") ?? []).filter(
      (thread) => owning === undefined || this.#ids.has(`${owning} of ${thread}`),
    );
    const live = this.#ids.get("live")?.at(-1);
    // Others are over before anybody can cancel them.
    if (owning === "run_id" && live !== undefined && random.chance(0.5)) return live;
    return threads.length > 0 && random.chance(0.4) ? random.pick(threads) : (threads.at(-1) ?? NEW_ID);
  }
}

/** As a header or a query has it. */
const textOf = (value: unknown): string => (value instanceof Object ? JSON.stringify(value) : String(value));

export class Walker {
  readonly #random: Random;
  readonly #schemas: Readonly<Record<string, JsonSchema>>;
  readonly #seen: Seen;
  /** The thread that the request is about. */
  #thread = NEW_ID;

  constructor(random: Random, schemas: Readonly<Record<string, JsonSchema>>, seen: Seen) {
    this.#random = random;
    this.#schemas = schemas;
    this.#seen = seen;
  }

  requestFor(operation: Operation): Request {
    const random = this.#random;
    const isBroken = random.chance(0.35);
    const query = new URLSearchParams();
    const headers: Record<string, string> = {};
    let { path } = operation;
    this.#thread = this.#seen.thread(
      random,
      OF_THREADS.find((name) => path.includes(`{${name}}`)),
    );
    for (const { name, in: where, required, schema } of operation.parameters) {
      if (where === "path") path = path.replace(`{${name}}`, this.#segment(name, isBroken));
      else if (required ? !isBroken || random.chance(0.8) : random.chance(where === "header" ? 0.15 : 0.4)) {
        const value = isBroken && random.chance(0.5) ? random.pick(ODD) : this.#value(name, schema, 0);
        if (where === "header") headers[name] = textOf(value).replaceAll(/[^ -~]/g, "?");
        else for (const one of [value].flat()) query.append(name, textOf(one));
      }
    }
    const search = query.size > 0 ? `?${query.toString()}` : "";
    const request = { method: operation.method, path: path + search, headers, thread: this.#thread };
    if (!operation.body) return request;
    headers["content-type"] = random.chance(0.1) ? "text/plain" : "application/json";
    return { ...request, body: this.#body(operation.body, isBroken) };
  }

  #id(name: string): string {
    if (name === "thread_id" && this.#random.chance(0.9)) return this.#thread;
    return this.#seen.pick(this.#random, name, this.#thread);
  }

  #segment(name: string, isBroken: boolean): string {
    const random = this.#random;
    if (isBroken && random.chance(0.3))
      return random.pick([
        "7",
        "not-a-uuid",
        "%00",
        "%zz",
        "%F0%9F%92%A5",
        "a%2Fb",
        NEW_ID,
        "x".repeat(2000),
        "'",
      ]);
    if (name === "assistant_id" && random.chance(0.7)) return random.pick(GRAPHS);
    if (name === "namespace") return random.pick(["inner", "inner|x", "nothing"]);
    const id = this.#id(name);
    return random.chance(0.05) ? id.toUpperCase() : id;
  }

  #body(schema: JsonSchema, isBroken: boolean): string {
    const random = this.#random;
    const body = this.#value("", schema, 0);
    if (!isBroken) return JSON.stringify(body);
    if (random.chance(0.25)) return random.pick(BROKEN_BODIES);
    for (let changes = random.between(1, 3); changes > 0; changes -= 1) this.#spoil(body);
    return JSON.stringify(body);
  }

  /** Puts something odd somewhere into a value, or takes something out. */
  #spoil(value: unknown): void {
    const random = this.#random;
    if (typeof value !== "object" || value === null) return;
    const keys = Object.keys(value);
    if (keys.length === 0 || random.chance(0.1))
      return void Reflect.set(
        value,
        random.pick(["extra", "constructor", "0", "über"]),
        structuredClone(random.pick(ODD)),
      );
    const key = random.pick(keys);
    const inner: unknown = Reflect.get(value, key);
    if (typeof inner === "object" && inner !== null && random.chance(0.4)) this.#spoil(inner);
    else if (random.chance(0.2)) Reflect.deleteProperty(value, key);
    else Reflect.set(value, key, structuredClone(random.pick(ODD)));
  }

  /** A value that the schema allows, as far as it says. */
  #value(name: string, schema: JsonSchema, depth: number): unknown {
    const random = this.#random;
    if (/^(thread|run|checkpoint|cron|budget)_id$/.test(name)) return this.#id(name);
    if (name === "ids" || name === "thread_ids" || name === "run_ids")
      return [this.#id(name === "run_ids" ? "run_id" : "thread_id")];
    if (name === "assistant_id") return random.chance(0.8) ? random.pick(GRAPHS) : this.#id(name);
    if (name === "checkpoint" || name === "before") return this.#checkpoint(name);
    if (name in KNOWN && random.chance(0.85)) return structuredClone(random.pick(KNOWN[name] ?? []));
    return this.#any(schema, depth);
  }

  #checkpoint(name: string): unknown {
    const id = this.#id("checkpoint_id");
    const all = [
      { checkpoint_id: id },
      { checkpoint_id: id, checkpoint_ns: "" },
      { checkpoint_id: id, checkpoint_ns: "inner" },
      {},
    ];
    if (name === "checkpoint")
      return this.#random.pick([
        ...all,
        { checkpoint_id: 5, checkpoint_map: [] },
        { thread_id: "x", checkpoint_ns: 7 },
      ]);
    return this.#random.pick([id, { configurable: all[0] }, { checkpoint_id: id }]);
  }

  #any(schema: JsonSchema, depth: number): unknown {
    const random = this.#random;
    const {
      $ref,
      anyOf,
      type,
      properties,
      required = [],
      items,
      minimum = 0,
      maximum = 1000,
    } = schema as Loose;
    if ("const" in schema) return schema["const"];
    if (Array.isArray(schema["enum"])) return random.pick(schema["enum"] as unknown[]);
    if ($ref) return this.#any(this.#schemas[$ref.split("/").at(-1) ?? ""] ?? {}, depth);
    if (anyOf) return this.#any(random.pick(anyOf), depth);
    switch (Array.isArray(type) ? random.pick(type) : type) {
      case "null":
        return null;
      case "boolean":
        return random.chance(0.5);
      case "integer":
        return random.between(minimum, Math.min(maximum, minimum + 20));
      case "number":
        return random.next() * 10 + minimum;
      case "string":
        return schema["format"] === "uuid" ? NEW_ID : random.pick(TEXTS);
      case "array":
        return Array.from({ length: random.between(1, 2) }, () => this.#any(items ?? {}, depth + 1));
      case "object":
        return properties
          ? this.#object(properties, required, depth)
          : { [random.pick(TEXTS)]: random.pick(TEXTS) };
      default:
        return structuredClone(
          random.pick(depth > 2 ? [1, "a"] : [1, "a", null, { value: 1 }, [1, { a: null }]]),
        );
    }
  }

  #object(
    properties: Readonly<Record<string, JsonSchema>>,
    required: readonly string[],
    depth: number,
  ): object {
    const names = Object.keys(properties);
    // Few fields at a time: of many, one is always refused.
    const share = Math.min(0.5, 2.5 / names.length);
    const wanted = names.filter(
      (name) => required.includes(name) || this.#random.chance(name === "input" ? 0.9 : share),
    );
    return Object.fromEntries(
      wanted.map((name) => [name, this.#value(name, properties[name] ?? {}, depth + 1)]),
    );
  }
}

interface Loose {
  readonly $ref?: string;
  readonly anyOf?: readonly JsonSchema[];
  readonly type?: string | readonly string[];
  readonly properties?: Readonly<Record<string, JsonSchema>>;
  readonly required?: readonly string[];
  readonly items?: JsonSchema;
  readonly minimum?: number;
  readonly maximum?: number;
}

// The stock PostgresSaver against ours, plain and sealed, turn by turn on one thread each, in one interleaved run:
// SQL statements per turn, bytes on disk, wall time as the conversation grows.
import { randomUUID } from "node:crypto";
import { parseArgs } from "node:util";
import { AIMessage, HumanMessage } from "@langchain/core/messages";
import { END, MessagesDeltaValue, MessagesValue, START, StateGraph, StateSchema } from "@langchain/langgraph";
import { PostgresSaver } from "@langchain/langgraph-checkpoint-postgres";
import { Client } from "pg";
import { z } from "zod";
import { KeyRing, newKeyLine } from "../server/privacy/key-ring.ts";
import { Checkpoints } from "../server/storage/checkpoints/checkpoints.ts";
import { Seals } from "../server/storage/keys/seals.ts";
import { insertThread } from "../server/storage/threads.ts";
import { openScratchDatabase } from "./scratch.ts";
import type { ScratchDatabase } from "./scratch.ts";

const TURNS = [1, 50, 200];
// Each figure is the median of this many turns around it.
const AROUND = 2;
const ANSWER =
  "The checkpointer stores one row per superstep, so a thread goes on from its last node. ".repeat(12);

interface Contender {
  readonly name: string;
  readonly turn: (text: string) => Promise<void>;
  readonly scratch: ScratchDatabase;
  readonly statements: number[];
  readonly wallMs: number[];
}

export async function checkpoints(args: string[]): Promise<void> {
  const { values } = parseArgs({ args, options: { json: { type: "boolean" }, turns: { type: "string" } } });
  const turns = Number(values.turns ?? 200);
  const counter = countStatements();
  const contenders: Contender[] = [];
  const closers: (() => Promise<void>)[] = [];
  try {
    for (const make of [stock, oursPlain, oursDelta, sealedPlain, sealedDelta]) {
      const { contender, close } = await make();
      closers.unshift(close);
      contenders.push(contender);
    }
    for (let turn = 1; turn <= turns; turn += 1) {
      for (const contender of contenders) await measure(contender, counter, turn);
      if (!values.json && turn % 50 === 0) console.log(`turn ${turn} of ${turns}`);
    }
    const rows = await Promise.all(contenders.map((contender) => summarise(contender, turns)));
    if (values.json)
      console.log(JSON.stringify(Object.fromEntries(rows.map(({ name, ...rest }) => [name, rest]))));
    else console.table(Object.fromEntries(rows.map(({ name, ...rest }) => [name, rest])));
  } finally {
    counter.stop();
    for (const close of closers) await close();
  }
}

async function measure(contender: Contender, counter: { count: number }, turn: number): Promise<void> {
  const before = counter.count;
  const startedAt = performance.now();
  await contender.turn(`Question ${turn}: what happens to a thread when the process dies? `.repeat(2));
  contender.wallMs.push(performance.now() - startedAt);
  contender.statements.push(counter.count - before);
}

async function summarise({ name, scratch, statements, wallMs }: Contender, turns: number) {
  const [row] = await scratch.database.query<{ bytes: number }>(
    `select sum(pg_total_relation_size(t::regclass))::bigint as bytes
       from unnest(array['public.checkpoints', 'public.checkpoint_blobs', 'public.checkpoint_writes']) t`,
  );
  const at = TURNS.filter((turn) => turn <= turns).map((turn) => {
    const around = wallMs.slice(Math.max(0, turn - 1 - AROUND), turn + AROUND);
    return [`turn_${turn}_ms`, round(median(around))];
  });
  return {
    name,
    statements_per_turn: median(statements),
    most_statements: Math.max(...statements),
    all_turns_ms: Math.round(wallMs.reduce((sum, ms) => sum + ms, 0)),
    ...Object.fromEntries(at),
    megabytes: round((row?.bytes ?? 0) / 1e6),
  };
}

const stock = async () => {
  const scratch = await openScratchDatabase();
  const saver = PostgresSaver.fromConnString(scratch.url);
  await saver.setup();
  const close = async (): Promise<void> => {
    await saver.end();
    await scratch.close();
  };
  return { contender: await contend("stock", scratch, plainGraph(saver)), close };
};

const oursPlain = async () => ours("ours_plain", plainGraph);
const oursDelta = async () => ours("ours_delta", deltaGraph);
const sealedPlain = async () => ours("sealed_plain", plainGraph, newSeals());
const sealedDelta = async () => ours("sealed_delta", deltaGraph, newSeals());

const newSeals = (): Seals => new Seals(new KeyRing(newKeyLine("bench")));

async function ours(name: string, build: (saver: Checkpoints) => Invocable, seals?: Seals) {
  const scratch = await openScratchDatabase(seals);
  return {
    contender: await contend(name, scratch, build(new Checkpoints(scratch.database))),
    close: () => scratch.close(),
  };
}

interface Invocable {
  invoke(input: object, config: object): Promise<unknown>;
}

async function contend(name: string, scratch: ScratchDatabase, graph: Invocable): Promise<Contender> {
  const turnOf = async (threadId: string): Promise<(text: string) => Promise<void>> => {
    await insertThread(scratch.database, threadId, {});
    const config = { configurable: { thread_id: threadId }, durability: "sync" };
    return async (text) => {
      await graph.invoke({ messages: [new HumanMessage(text)] }, config);
    };
  };
  // Connections, plans and compiled code are warm before the first turn counts.
  const warm = await turnOf(randomUUID());
  for (let turn = 0; turn < 10; turn += 1) await warm("warm-up");
  await scratch.database.query(
    "truncate public.checkpoints, public.checkpoint_blobs, public.checkpoint_writes",
  );
  return { name, scratch, turn: await turnOf(randomUUID()), statements: [], wallMs: [] };
}

const passages = z.array(z.string()).default([]);
const budget = z.object({ prompt: z.number() }).default({ prompt: 0 });

function plainGraph(checkpointer: Checkpoints | PostgresSaver): Invocable {
  return nodes(new StateSchema({ messages: MessagesValue, passages, budget })).compile({ checkpointer });
}

function deltaGraph(checkpointer: Checkpoints): Invocable {
  return nodes(new StateSchema({ messages: MessagesDeltaValue, passages, budget })).compile({ checkpointer });
}

function nodes(
  schema:
    | StateSchema<{ messages: typeof MessagesValue; passages: typeof passages; budget: typeof budget }>
    | StateSchema<{ messages: typeof MessagesDeltaValue; passages: typeof passages; budget: typeof budget }>,
) {
  // Both schemas have the same fields; only how messages are kept differs.
  return new StateGraph(
    schema as StateSchema<{
      messages: typeof MessagesValue;
      passages: typeof passages;
      budget: typeof budget;
    }>,
  )
    .addNode("retrieve", () => ({ passages: ["one passage", "another passage"] }))
    .addNode("budget-check", () => ({ budget: { prompt: 1200 } }))
    .addNode("generate", () => ({ messages: [new AIMessage(ANSWER)] }))
    .addNode("redact", () => ({}))
    .addEdge(START, "retrieve")
    .addEdge("retrieve", "budget-check")
    .addEdge("budget-check", "generate")
    .addEdge("generate", "redact")
    .addEdge("redact", END);
}

/** Counts every statement that this process sends, begin and commit included. */
function countStatements(): { count: number; stop(): void } {
  const query: unknown = Reflect.get(Client.prototype, "query");
  const counter = { count: 0, stop: () => void Object.assign(Client.prototype, { query }) };
  Object.assign(Client.prototype, {
    query(this: Client, ...args: unknown[]): unknown {
      counter.count += 1;
      return typeof query === "function" ? Reflect.apply(query, this, args) : undefined;
    },
  });
  return counter;
}

const round = (value: number): number => Math.round(value * 100) / 100;
function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

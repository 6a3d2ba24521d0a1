// holdfast chaos: the command on a real graph, and that each of its laws and clients sees what it has to see.
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { afterEach, describe, expect, inject, test } from "vitest";
import { chaos } from "../../server/commands/chaos.ts";
import type { Asked } from "../../server/commands/chaos/ask.ts";
import type { Move, RunFact, SegmentFact, Write } from "../../server/commands/chaos/audit.ts";
import { ENDS_WELL, judge, LAWS } from "../../server/commands/chaos/laws.ts";
import type { Facts, Told } from "../../server/commands/chaos/laws.ts";
import { startProxy } from "../../server/commands/chaos/proxy.ts";
import { quantile } from "../../server/commands/chaos/quantile.ts";
import { seeded } from "../../server/commands/chaos/random.ts";
import type { Random } from "../../server/commands/chaos/random.ts";
import { Sight } from "../../server/commands/chaos/sight.ts";
import { framesOf } from "../../server/commands/chaos/stream.ts";
import type { Frame } from "../../server/commands/chaos/stream.ts";
import { readConfig } from "../../server/config.ts";
import type { Config } from "../../server/config.ts";
import { collect } from "../support/server.ts";
import { until } from "../support/until.ts";

const [run, thread, first, second] = ["run", "thread", "worker-1", "worker-2"];
const move = (one: Partial<Move>): Move => ({
  n: 1,
  at: 0,
  run_id: run,
  thread_id: thread,
  was: "running",
  state: "success",
  attempt_was: 1,
  attempt: 1,
  worker_id: first,
  ...one,
});
const born = move({ was: null, state: "running", attempt_was: null });
const runFact: RunFact = {
  run_id: run,
  thread_id: thread,
  state: "success",
  attempt: 1,
  handovers: 0,
  error: null,
};
const segment: SegmentFact = { run_id: run, seq: 0, last: 1, attempt: 1 };
const write: Write = {
  n: 1,
  at: 0,
  what: "events",
  writer: "chaos-1",
  thread_id: thread,
  run_id: run,
  attempt: 1,
  run_state: "running",
  run_attempt: 1,
  run_worker: first,
  is_ending: false,
};
const sightOf = (...frames: Frame[]): Sight => {
  const sight = new Sight({ mayJump: false });
  for (const frame of frames) sight.take(frame);
  return sight;
};
const begin: Frame = { id: 0, event: "metadata", data: { attempt: 1 } };
const end: Frame = { id: 1, event: "custom", data: 1 };
const asked: Asked = { threadId: thread, runId: run, sight: sightOf(begin, end), troubles: [] };
const point = { thread_id: thread, checkpoint_id: "1", parent_checkpoint_id: null };
const facts: Facts = {
  told: [{ ...asked, values: {}, checkpointId: "2" }],
  runs: [runFact],
  moves: [born, move({})],
  writes: [write],
  segments: [segment],
  checkpoints: [point, { ...point, checkpoint_id: "2", parent_checkpoint_id: "1" }],
  workers: new Map([
    ["chaos-1", first],
    ["chaos-2", second],
  ]),
  faltering: [],
  mayJump: false,
};
const brokenBy = (change: Partial<Facts>): string[] =>
  judge({ ...facts, ...change }, [...LAWS, ENDS_WELL])
    .filter(({ broken }) => broken.length > 0)
    .map(({ title }) => title);
const withPoints = (...parents: (string | null)[]): Partial<Facts> => ({
  checkpoints: parents.map((parent, index) => ({
    thread_id: thread,
    checkpoint_id: String(index + 1),
    parent_checkpoint_id: parent,
  })),
});

const say = (id: number, content: string, type = "ai"): Frame => ({
  id,
  event: "messages",
  data: [{ id: "m", type, content }, {}],
});
const holds = (content: string): Told["values"] => ({ messages: [{ id: "m", type: "ai", content }] });
const shownWith = (sight: Sight, values: Told["values"]): string[] =>
  brokenBy({ told: [{ ...asked, sight, values }], segments: [{ ...segment, last: sight.lastId }] });
const draw = (random: Random): number[] => Array.from({ length: 50 }, () => random.between(1, 6));

const configOf = (graphs: string): Config =>
  readConfig({ DATABASE_URL: inject("serverUrl"), HOLDFAST_CONFIG: graphs });

describe("the command", () => {
  const small = { runs: 8, instances: 2, faults: "kill9", seed: 1 };

  test("kills servers under a graph, prints every promise it kept and exits with 0", async () => {
    const lines: string[] = [];
    const question = { role: "user", content: "word ".repeat(150) };
    const input = JSON.stringify({ messages: [question] });
    const options = { ...small, graph: "crash", input, say: (line: string) => lines.push(line) };
    const code = await chaos(configOf("crash/langgraph.json"), options);
    expect(lines.join("\n")).toMatch(/kill9: struck [1-9]\d* of \d+ runs; they ran again after/);
    expect(lines.filter((line) => line.startsWith("ok "))).toHaveLength(LAWS.length + 1);
    expect(code).toBe(0);
  }, 60_000);

  test("a graph that fails by itself is told apart from a broken promise", async () => {
    const lines: string[] = [];
    const options = { ...small, graph: "failing", say: (line: string) => lines.push(line) };
    expect(await chaos(configOf("test/fixtures/langgraph.json"), options)).toBe(1);
    expect(lines.at(-1)).toContain("fails without any fault (RangeError: the node failed on purpose)");
  }, 60_000);

  test.each([
    [{ faults: "kill9,fire" }, /^fire is not a fault/],
    [{ faults: "kill9," }, /^Nothing is not a fault/],
    [{ input: "{" }, /^--input is not JSON/],
    [{ runs: 0 }, /^--runs must be/],
    [{ instances: 1 }, /^--instances must be/],
    [{ graph: "none" }, /^none is no graph here; --graph takes .*echo/],
  ])("%j is wrong usage, told before anything starts", async (wrong, sentence) => {
    const lines: string[] = [];
    const options = { ...small, graph: "echo", say: (line: string) => lines.push(line), ...wrong };
    expect(await chaos(configOf("test/fixtures/langgraph.json"), options)).toBe(2);
    expect(lines).toEqual([expect.stringMatching(sentence)]);
  });
});

describe("the laws", () => {
  test("hold where nothing is wrong", () => {
    expect(brokenBy({})).toEqual([]);
  });

  const cases: [law: RegExp, what: string, change: Partial<Facts>][] = [
    [/go on answering/, "a server that is silent", { faltering: ["chaos-1 answers nothing"] }],
    [/exists, once/, "a lost run", { runs: [] }],
    [/exists, once/, "two runs for one request", { runs: [runFact, { ...runFact, run_id: "other" }] }],
    [/run ends, once/, "a run that goes on", { runs: [{ ...runFact, state: "running" }] }],
    [/run ends, once/, "two ends", { moves: [born, move({}), move({})] }],
    [/one live run/, "two live runs", { moves: [born, { ...born, run_id: "other" }, move({})] }],
    [/states move/, "a move that is none", { moves: [born, move({ state: "delayed" }), move({})] }],
    [/states move/, "an attempt that shrinks", { moves: [born, move({ attempt: 0 })] }],
    [
      /states move/,
      "a claim that does not count",
      {
        moves: [
          born,
          move({ state: "ready", worker_id: null }),
          move({ was: "ready", state: "running", worker_id: second }),
          move({}),
        ],
      },
    ],
    [/nothing is written/, "an older attempt", { writes: [{ ...write, run_attempt: 2 }] }],
    [/nothing is written/, "another worker", { writes: [{ ...write, writer: "chaos-2" }] }],
    [/nothing is written/, "a write after the end", { writes: [{ ...write, run_state: "success" }] }],
    [/nothing is written/, "a write for a deleted run", { writes: [{ ...write, run_state: null }] }],
    [/without gaps/, "a gap", { segments: [segment, { ...segment, seq: 3, last: 3 }] }],
    [/without gaps/, "an event twice", { segments: [segment, { ...segment, seq: 1, last: 2 }] }],
    [
      /without gaps/,
      "an attempt that comes back",
      {
        segments: [
          { ...segment, attempt: 2 },
          { ...segment, seq: 2, last: 2 },
        ],
      },
    ],
    [/one chain/, "a fork", withPoints(null, "1", "1")],
    [/one chain/, "two beginnings", withPoints(null, null)],
    [/one chain/, "a lost parent", withPoints(null, "0")],
    [/its last checkpoint/, "a lost checkpoint", { told: [{ ...asked, values: {}, checkpointId: "3" }] }],
    [/its last checkpoint/, "an old checkpoint", { told: [{ ...asked, values: {}, checkpointId: "1" }] }],
    [/sees every event/, "a gap at a client", { told: [{ ...asked, sight: sightOf(end), values: {} }] }],
    [/sees every event/, "an end too early", { told: [{ ...asked, sight: sightOf(begin), values: {} }] }],
    [
      /fails because/,
      "an error",
      { runs: [{ ...runFact, state: "error" }], moves: [born, move({ state: "error" })] },
    ],
  ];
  test.each(cases)("%s sees %s", (law, _what, change) => {
    expect(brokenBy(change).join("\n")).toMatch(law);
  });

  test("what a client shows is compared with what the thread holds", () => {
    const whole = sightOf(begin, say(1, "a"), say(2, "b"));
    expect(shownWith(whole, holds("ab"))).toEqual([]);
    expect(shownWith(whole, holds("a"))).toEqual([expect.stringMatching(/what a client shows/)]);
    expect(shownWith(whole, {})).toEqual([expect.stringMatching(/what a client shows/)]);
    const takenBack = sightOf(begin, say(1, "half"), say(2, "", "remove"), say(3, "ab"));
    expect(shownWith(takenBack, holds("ab"))).toEqual([]);
    expect(shownWith(sightOf(begin, end), holds("ab"))).toEqual([
      expect.stringMatching(/what a client shows/),
    ]);
  });

  test("a crash of the database allows one jump, where an attempt begins", () => {
    const jump = [segment, { ...segment, seq: 1000, last: 1000, attempt: 2 }];
    const far = { ...asked, sight: new Sight({ mayJump: true }), values: {} };
    for (const frame of [begin, end, { ...begin, id: 1000, data: { attempt: 2 } }]) far.sight.take(frame);
    expect(brokenBy({ segments: jump, told: [far] })).toEqual([expect.stringMatching(/without gaps/)]);
    expect(brokenBy({ segments: jump, told: [far], mayJump: true })).toEqual([]);
  });
});

describe("the client", () => {
  test("reads frames over any cut between pieces, and skips heartbeats", async () => {
    const text =
      'event: metadata\ndata: {"attempt":1}\nid: 0\n\n: heartbeat\nevent: custom\ndata: "a: b"\nid: 1\n\n';
    const bytes = new TextEncoder().encode(text);
    for (const size of [1, 2, 7, bytes.length]) {
      const pieces = Array.from({ length: Math.ceil(bytes.length / size) }, (_, index) =>
        bytes.slice(index * size, (index + 1) * size),
      );
      const frames = await collect(framesOf(new Response(ReadableStream.from(pieces))) as never);
      expect(frames).toEqual([
        { id: 0, event: "metadata", data: { attempt: 1 } },
        { id: 1, event: "custom", data: "a: b" },
      ]);
    }
  });
});

describe("the proxy", () => {
  const open: (() => unknown)[] = [];
  afterEach(async () => {
    for (const close of open.splice(0).toReversed()) await close();
  });

  /** A server that answers each piece with the same, and what it has heard. */
  async function behindProxy(): Promise<{
    proxy: Awaited<ReturnType<typeof startProxy>>;
    client: Socket;
    heard: string[];
    answers: string[];
  }> {
    const heard: string[] = [];
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.on("data", (piece) => {
        heard.push(piece.toString());
        socket.write(piece);
      });
    }).listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const proxy = await startProxy(`postgresql://127.0.0.1:${port}/db`);
    const client = connect(Number(new URL(proxy.url("me")).port), "127.0.0.1");
    const answers: string[] = [];
    client.on("data", (piece) => answers.push(piece.toString())).on("error", () => undefined);
    open.push(
      () => server.close(),
      () => proxy.close(),
      () => client.destroy(),
    );
    await once(client, "connect");
    return { proxy, client, heard, answers };
  }

  test("tells the database who connects", async () => {
    const { proxy } = await behindProxy();
    expect(new URL(proxy.url("me")).searchParams.get("application_name")).toBe("me");
  });

  test("lets a statement through and cuts before its answer", async () => {
    const { proxy, client, heard, answers } = await behindProxy();
    client.write("one");
    await until(() => answers.length === 1, "the first answer");
    const cut = proxy.cutBeforeAnswer(["two"]);
    client.write("two");
    await Promise.all([cut, once(client, "close")]);
    expect(heard).toEqual(["one", "two"]);
    expect(answers).toEqual(["one"]);
  });

  test("holds back what is sent while it is frozen, and delivers it afterwards", async () => {
    const { proxy, client, heard, answers } = await behindProxy();
    proxy.freeze();
    client.write("late");
    await expect(until(() => heard.length > 0, "anything", 200)).rejects.toThrow(/still waiting/);
    proxy.thaw();
    await until(() => answers.length === 1, "the late answer");
  });
});

test("chance can be replayed, and a fork does not disturb it", () => {
  const [one, two] = [seeded(7), seeded(7)];
  const fork = one.fork();
  two.fork();
  fork.next();
  expect(draw(one)).toEqual(draw(two));
  expect(new Set(draw(seeded(8)))).toEqual(new Set([1, 2, 3, 4, 5, 6]));
});

test("a quantile is one of the values", () => {
  expect(quantile([], 0.5)).toBeUndefined();
  expect(quantile([3, 1, 2], 0.5)).toBe(2);
  expect(quantile([3, 1, 2], 0.99)).toBe(3);
});

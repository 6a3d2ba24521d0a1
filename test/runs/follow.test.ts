// One run's events for one reader: from the log, from memory, and from the log again, each as it was told; and nothing of
// it stays behind.
import { getEventListeners } from "node:events";
import { expect, test } from "vitest";
import type { Engine } from "../../server/runs/engine.ts";
import { follow, followLegacy, legacyBefore, readLog } from "../../server/runs/follow.ts";
import { LineWriter, dataOf } from "../../server/runs/log/lines.ts";
import type { Entry, Numbered, Template } from "../../server/runs/log/lines.ts";
import { Tail } from "../../server/runs/log/tail.ts";

const template: Template = { event: "messages/partial", prefix: '[{"content":', suffix: "}]" };

/** An answer that is told from its beginning each time. */
function growing(count: number, piece: (index: number) => string): Numbered[] {
  let text = "";
  return Array.from({ length: count }, (_, seq) => {
    text += piece(seq);
    const added = seq === 0 ? undefined : piece(seq);
    return { seq, entry: { template, text: JSON.stringify(text), added } };
  });
}

interface Row {
  readonly n: number;
  readonly seq: number;
  readonly last: number;
  readonly body: string;
}

/** Its log, so many events in a row. */
function logOf(events: readonly Numbered[], each: number): Row[] {
  const writer = new LineWriter();
  const rows: Row[] = [];
  for (let at = 0; at < events.length; at += each) {
    const body = events.slice(at, at + each).map((event) => writer.line(event));
    rows.push({ n: 1, seq: at, last: at + body.length - 1, body: body.join("\n") });
  }
  return rows;
}

type Source = Parameters<typeof follow>[0];

/** @param shown the number of the last event that the log shows at the moment, and whether the run is over */
function sourceOf(rows: readonly Row[], shown: { last: number; isOver: boolean; tail?: Tail }): Source {
  const reader = {
    read: async (_run: string, after: number) => {
      const found = rows.filter(({ last }) => last > after && last <= shown.last);
      const state = shown.isOver ? "success" : "running";
      const none = { n: 1, seq: null, last: 0, body: "" };
      return (found.length > 0 ? found : [none]).map((row) => Object.assign({ state }, row));
    },
    find: async (_run: string, seq: number) => rows.findLast((row) => row.seq <= seq),
  };
  const live = { get: () => shown.tail && { tail: shown.tail } };
  return { live, reader, hints: { next: async () => undefined } } as unknown as Source; // all that follow() asks
}

function tailOf(events: readonly Numbered[]): Tail {
  const tail = new Tail(events[0]?.seq ?? 0);
  for (const { entry } of events) tail.push(entry);
  tail.commit(events.at(-1)?.seq ?? 0);
  return tail;
}

test("a text that grows is whole, although its reader changes between the log and memory", async () => {
  const events = growing(60, (index) => `${index} `);
  const shown: { last: number; isOver: boolean; tail?: Tail } = { last: 10, isOver: false };
  const reading = follow(sourceOf(logOf(events, 1), shown), "r", {
    after: -1,
    signal: new AbortController().signal,
  });
  const read: Numbered[] = [];
  const readOn = async (through: number): Promise<void> => {
    while ((read.at(-1)?.seq ?? -1) < through) read.push(...((await reading.next()).value ?? []));
  };
  await readOn(10);
  const tail = tailOf(events.slice(5, 31));
  Object.assign(shown, { tail, last: 30 });
  await readOn(30);
  // Its reader is slow, and memory has gone on.
  tail.after = (after) => tailOf(events.slice(50)).after(after);
  shown.last = 59;
  await readOn(59);
  expect(read.map(({ entry }) => dataOf(entry))).toEqual(events.map(({ entry }) => dataOf(entry)));
});

/** How long a portion of all events is at most, as clients get it. */
async function longestOf(source: Source, count: number): Promise<number> {
  let [next, most] = [0, 0];
  for await (const portion of follow(source, "r", { after: -1, signal: new AbortController().signal })) {
    const size = portion.reduce((sum, { entry }) => sum + dataOf(entry).length, 0);
    most = Math.max(most, size);
    for (const { seq } of portion) expect(seq).toBe(next++);
  }
  expect(next).toBe(count);
  return most;
}

test("a long answer that is told from its beginning each time comes in portions", async () => {
  const events = growing(4000, () => "some word ");
  const longest = dataOf(events.at(-1)?.entry ?? { event: "", data: "" }).length;
  const source = sourceOf(logOf(events, 4000), { last: Infinity, isOver: true });
  expect(await longestOf(source, 4000)).toBeLessThan(512 * 1024 + longest);
});

test("a run that goes while it is read comes to a clean end", async () => {
  const said = Array.from({ length: 200 }, (_, index) => `${index * 7919}`);
  const events = said.slice(0, 5).map((word, seq) => {
    return { seq, entry: { event: "values", data: JSON.stringify({ said: [...said, word] }) } };
  });
  const source = sourceOf(logOf(events, 1), { last: Infinity, isOver: false });
  Object.assign(source.reader, { find: async () => undefined });
  const { signal } = new AbortController();
  // Its first state, by which the others are told, is gone.
  const read: Numbered[] = [];
  for await (const portion of follow(source, "r", { after: 0, signal })) read.push(...portion);
  expect(read).toEqual([]);
});

test("tokens that are told with much else each come in portions, from the log and from memory", async () => {
  const told: Template = { event: "messages", prefix: "[", suffix: `,"${"x".repeat(100_000)}"]` };
  const events = Array.from({ length: 1000 }, (_, seq) => ({ seq, entry: { template: told, text: '"a"' } }));
  const tail = tailOf(events);
  tail.close("over");
  for (const shown of [{}, { tail }])
    expect(
      await longestOf(sourceOf(logOf(events, 1000), { last: Infinity, isOver: true, ...shown }), 1000),
    ).toBeLessThan(512 * 1024);
});

test("a log whose rows become one while it is read is read once", async () => {
  const events = growing(64, () => "x");
  const [scattered, [merged]] = [logOf(events, 1), logOf(events, 64)];
  const { reader } = sourceOf(scattered, { last: 64, isOver: true });
  const first = (await reader.read("run", -1)).slice(0, 32);
  first.push(...first.splice(-1).map((row) => Object.assign(row, { is_more: true })));
  const paged = (_run: string, after: number): ReturnType<typeof reader.read> =>
    after < 0
      ? Promise.resolve(first)
      : Promise.resolve(merged ? [{ ...merged, state: "success" as const }] : []);
  const seen = await Array.fromAsync(readLog(Object.assign(reader, { read: paged }), "run"));
  expect(seen.flat().map(({ seq }) => seq)).toEqual(events.map(({ seq }) => seq));
});

test("who follows many runs with one signal keeps nothing of those that are over", async () => {
  const { signal } = new AbortController();
  for (let run = 0; run < 20; run += 1) {
    const tail = tailOf(growing(3, String));
    const reading = follow(sourceOf([], { last: 0, isOver: false, tail }), "r", { after: -1, signal });
    await reading.next();
    const last = reading.next();
    await new Promise((resolve) => setImmediate(resolve));
    tail.close("over");
    await last;
  }
  expect(getEventListeners(signal, "abort")).toEqual([]);
});

test("a run that is not this server's any more is read from the log, as another one goes on with it", async () => {
  const events = growing(4, String);
  const tail = tailOf(events.slice(0, 2));
  tail.close("lost");
  tail.once = () => expect.fail("nothing more comes of it");
  const shown = { last: 3, isOver: true, tail };
  const reading = follow(sourceOf(logOf(events, 1), shown), "r", {
    after: 1,
    signal: new AbortController().signal,
  });
  const seen = (await Array.fromAsync(reading)).flat();
  expect(seen.map(({ seq }) => seq)).toEqual([2, 3]);
});

const whole = (data: string, more: object = {}): Entry => ({ event: "values", data, ...more });
const numbered = (entries: readonly Entry[]): Numbered[] => entries.map((entry, seq) => ({ seq, entry }));

test("who reads a run that somebody follows by protocol v2 only later is told what he would be told without", async () => {
  const events = numbered([
    whole("0"),
    whole("{}", { at: 1 }),
    whole("1"),
    whole("{}", { at: 2 }),
    whole("2"),
  ]);
  const source = sourceOf(logOf(events, 1), { last: 4, isOver: true });
  const told = async (after: number): Promise<unknown[]> => {
    const run = { run_id: "r", is_watched: false };
    const reading = followLegacy(source, run, { after, signal: new AbortController().signal });
    return (await Array.fromAsync(reading)).flat().map(({ seq, entry }) => [seq, dataOf(entry)]);
  };
  expect(await told(-1)).toEqual([
    [0, "0"],
    [1, "1"],
    [2, "2"],
  ]);
});

test("events that a crash of the database took do not shift the numbers of those behind them", async () => {
  const [first, hidden, later] = [whole("0"), whole("{}", { at: 1 }), whole("4")];
  const entries: [number, Entry][] = [
    [0, first],
    [1, hidden],
    [4, later],
  ];
  const rows = entries.flatMap(([seq, entry]) =>
    logOf([{ seq, entry }], 1).map((row) => Object.assign(row, { seq, last: seq })),
  );
  const source = sourceOf(rows, { last: 4, isOver: true });
  const run = { run_id: "r", is_watched: true };
  const reading = followLegacy(source, run, { after: -1, signal: new AbortController().signal });
  expect((await Array.fromAsync(reading)).flat()).toEqual([
    { seq: 0, entry: first },
    { seq: 4, entry: later },
  ]);
});

test("who has the state of a checkpoint is told what came after, from the event that tells it", async () => {
  const events = numbered(["a", "b", "c"].flatMap((id) => [whole("{}"), whole("{}", { checkpoint: id })]));
  const { reader } = sourceOf(logOf(events, 2), { last: 5, isOver: true });
  const database = { query: () => Promise.resolve([]) };
  const before = (checkpoint: string): Promise<number> =>
    legacyBefore({ reader, database } as unknown as Engine, { run_id: "r", thread_id: "t" }, checkpoint);
  expect(await Promise.all(["a", "b", "c", "of another run"].map(before))).toEqual([0, 2, 4, -1]);
});

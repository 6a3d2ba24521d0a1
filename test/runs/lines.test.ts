// The text form of the log: what is written is what is read, from wherever one begins, however it was cut.
import fc from "fast-check";
import { expect, test } from "vitest";
import { LineReader } from "../../server/runs/log/line-reader.ts";
import { LineWriter, dataOf, nameOf } from "../../server/runs/log/lines.ts";
import type { Entry, Template } from "../../server/runs/log/lines.ts";

interface Row {
  readonly seq: number;
  readonly body: string;
}
type Plain = readonly [
  seq: number,
  event: string,
  data: string,
  at: number | undefined,
  checkpoint: string | undefined,
];

const plainOf = (seq: number, entry: Entry): Plain => {
  const checkpoint = "checkpoint" in entry ? entry.checkpoint : undefined;
  return [seq, nameOf(entry), dataOf(entry), entry.at, checkpoint];
};

// Everything a JSON string can hold: control characters, the log's own dividers, halves of surrogate pairs.
const text = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: fc.constantFrom("\t", "\n", "\r", '"', "\\", "\0", "\u2028", "é", "😀") }),
  fc
    .array(fc.integer({ min: 0xd7f0, max: 0xe010 }), { maxLength: 4 })
    .map((codes) => String.fromCharCode(...codes)),
);
const json = fc.oneof(
  fc.jsonValue().map((value) => JSON.stringify(value)),
  text.map((value) => JSON.stringify({ [value]: value })),
);
// Namespaces of subgraphs are part of a name.
const event = fc.constantFrom("values", "messages", "messages|outer:1f|inner:2e", "e", "D", "d0");
const template: fc.Arbitrary<Template> = fc.record({
  event,
  prefix: fc.constant('[{"content":'),
  suffix: json.map((rest) => `,"rest":${rest}},{}]`),
});

/** Entries of one attempt: templates come and go between whole events. */
const attempt: fc.Arbitrary<Entry[]> = fc
  .tuple(fc.array(template, { minLength: 1, maxLength: 3 }), fc.nat(2))
  .chain(([templates]) =>
    fc.array(
      fc.oneof(
        fc.record({ event, data: json }),
        fc.record({ event, data: json, checkpoint: fc.uuid() }),
        fc.record({ template: fc.constantFrom(...templates), text: text.map((one) => JSON.stringify(one)) }),
      ),
      { minLength: 1, maxLength: 20 },
    ),
  )
  .chain((entries) =>
    fc
      .array(fc.option(fc.nat(2 ** 41), { nil: undefined }), {
        minLength: entries.length,
        maxLength: entries.length,
      })
      .map((times) => entries.map((entry, index) => withTime(entry, times[index]))),
  );

/** Of protocol v2, if it has a time. */
const withTime = (entry: Entry, at: number | undefined): Entry =>
  at === undefined ? entry : { ...entry, at };

/** The same with texts that grow, several at a time; now and then one is told anew. */
const growing: fc.Arbitrary<Entry[]> = fc
  .array(template, { minLength: 1, maxLength: 3 })
  .chain((templates) =>
    fc.array(
      fc.record({ of: fc.constantFrom(...templates), piece: text, isAnew: fc.boolean(), whole: json }),
      { minLength: 1, maxLength: 150 },
    ),
  )
  .map((pieces) => {
    const told = new Map<Template, string>();
    return pieces.flatMap(({ of, piece, isAnew, whole }): Entry[] => {
      const before = told.get(of) ?? "";
      const after = before + piece;
      told.set(of, after);
      const grows = !isAnew && before.isWellFormed() && after.isWellFormed();
      const added = grows ? JSON.stringify(piece).slice(1, -1) : undefined;
      const grown = { template: of, text: JSON.stringify(after), added };
      return isAnew ? [{ event: "values", data: whole }, grown] : [grown];
    });
  });

/** States of a run, one superstep after another, between what its nodes changed: mostly what the one before was. */
const states: fc.Arbitrary<Entry[]> = fc
  .array(
    fc.record({
      word: text,
      size: fc.constantFrom(1, 20, 400),
      at: fc.nat(30),
      gone: fc.constantFrom(0, 0, 1, 25),
      name: event,
      checkpoint: fc.option(fc.uuid(), { nil: undefined }),
    }),
    { minLength: 1, maxLength: 25 },
  )
  .map((steps) => {
    let messages = Array.from({ length: 20 }, (_, id) => ({
      id: `m${id * 7919}`,
      content: `${id} `.repeat(60),
    }));
    return steps.flatMap(({ word, size, at, gone, name, checkpoint }, step): Entry[] => {
      const content = `${word} `.repeat(size);
      messages = messages.toSpliced(at, gone, { id: `n${step * 7919}`, content });
      const data = JSON.stringify({ step, messages, left: 25 - step });
      const whole = { event: name, data, ...(checkpoint !== undefined && { checkpoint }) };
      return [whole, withTime({ event: "updates", data: JSON.stringify({ [name]: content }) }, step)];
    });
  });

/** A run's log: each attempt has a writer of its own, and after a crash of the database numbers leave a gap. */
const logOf = (entriesOf: fc.Arbitrary<Entry[]>): fc.Arbitrary<{ rows: Row[]; written: Plain[] }> =>
  fc
    .array(
      fc.record({
        entries: entriesOf,
        gap: fc.constantFrom(0, 0, 1_000_000),
        cuts: fc.infiniteStream(fc.boolean()),
      }),
      { minLength: 1, maxLength: 3 },
    )
    .map((attempts) => {
      const [rows, written]: [Row[], Plain[]] = [[], []];
      let next = 0;
      for (const { entries, gap, cuts } of attempts) {
        const writer = new LineWriter();
        let lines: string[] = [];
        const flush = (): void => {
          if (lines.length > 0) rows.push({ seq: next - lines.length, body: lines.join("\n") });
          lines = [];
        };
        next += gap;
        for (const entry of entries) {
          written.push(plainOf(next, entry));
          lines.push(writer.line({ seq: next, entry }));
          next += 1;
          if (cuts.next().value) flush();
        }
        flush();
      }
      return { rows, written };
    });

async function readFrom(rows: readonly Row[], start: number): Promise<{ read: Plain[]; lookups: number[] }> {
  const lookups: number[] = [];
  const reader = new LineReader((seq) => {
    lookups.push(seq);
    return Promise.resolve(rows.findLast((row) => row.seq <= seq));
  });
  const read: Plain[] = [];
  for (const { seq, body } of rows.slice(start)) {
    for await (const events of reader.read(seq, body))
      for (const { seq: number, entry } of events) read.push(plainOf(number, entry));
  }
  return { read, lookups };
}

test("a log reads as it was written, from any row of it", async () => {
  await fc.assert(
    fc.asyncProperty(logOf(attempt), fc.nat(), async ({ rows, written }, from) => {
      const start = from % rows.length;
      const { read, lookups } = await readFrom(rows, start);
      expect(read).toEqual(written.filter(([seq]) => seq >= (rows[start]?.seq ?? 0)));
      // Each definition is looked up once, and only one that lies before.
      expect(lookups).toEqual([...new Set(lookups)].filter((seq) => seq < (rows[start]?.seq ?? 0)));
    }),
    { numRuns: 500 },
  );
});

test.each([
  ["a text that grows", growing],
  ["a state, told by an earlier one,", states],
])("%s reads as it was written, from any row of its log", async (_what, entries) => {
  await fc.assert(
    fc.asyncProperty(logOf(entries), fc.nat(), async ({ rows, written }, from) => {
      const first = rows[from % rows.length]?.seq ?? 0;
      const { read } = await readFrom(rows, from % rows.length);
      expect(read).toEqual(written.filter(([seq]) => seq >= first));
    }),
    { numRuns: 300 },
  );
});

/** States of so many characters at least, each with one message more, as lines. */
function grownStates(size: number): { rows: Row[]; told: string[] } {
  const writer = new LineWriter();
  const long = Array.from({ length: Math.ceil(size / 20) }, (_, at) => `${at * 7919}`.padStart(20)).join("");
  const told = Array.from({ length: 20 }, (_, step) =>
    JSON.stringify({ step, messages: [long, ...Array.from({ length: step }, (__, at) => `new ${at}`)] }),
  );
  const rows = told.map((data, seq) => ({
    seq,
    body: writer.line({ seq, entry: { event: "values", data } }),
  }));
  return { rows, told };
}

test("the states of a run cost the first one and what came later", async () => {
  const { rows, told } = grownStates(40_000);
  const size = rows.reduce((sum, { body }) => sum + body.length, 0);
  expect(size).toBeLessThan(1.2 * (told[0]?.length ?? 0));
  const { read, lookups } = await readFrom(rows, 0);
  expect(read.map(([, , data]) => data)).toEqual(told);
  expect(lookups).toEqual([]);
  // Who begins later looks the first one up, once.
  expect((await readFrom(rows, 5)).lookups).toEqual([0]);
});

test("a reader that waits keeps no state of any size", async () => {
  const { rows, told } = grownStates(200_000);
  const { read, lookups } = await readFrom(rows, 0);
  expect(read.map(([, , data]) => data)).toEqual(told);
  expect(lookups).toEqual(rows.slice(1).map(() => 0));
});

test("an answer that is told from its beginning each time costs a few times its text", () => {
  const shared: Template = { event: "messages/partial", prefix: '[{"content":', suffix: ',"id":"a"}]' };
  const writer = new LineWriter();
  let told = "";
  const lines = Array.from({ length: 1000 }, (_, seq) => {
    told += " word";
    const entry = { template: shared, text: JSON.stringify(told), added: seq > 0 ? " word" : undefined };
    return writer.line({ seq, entry });
  });
  expect(lines[1]).toBe("a0\t word");
  expect(lines.join("\n").length).toBeLessThan(15 * told.length);
});

const wholeParts = (line: string, entry: Entry): number =>
  (line.startsWith("v") ? 4 : 3) + ("checkpoint" in entry ? 1 : 0);

test("each event is one line, without the dividers in its parts", () => {
  fc.assert(
    fc.property(fc.oneof(attempt, growing, states), (entries) => {
      const writer = new LineWriter();
      for (const [seq, entry] of entries.entries()) {
        const line = writer.line({ seq, entry });
        expect(line).not.toContain("\n");
        const bare = line.replace(/^@\d+\t/, "");
        expect(bare === line).toBe(entry.at === undefined);
        const parts = bare.split("\t").length;
        expect(parts).toBe(/^[DG]\t/.test(bare) ? 5 : "template" in entry ? 2 : wholeParts(bare, entry));
      }
    }),
  );
});

test("a token costs its own text and a few characters", () => {
  const shared: Template = {
    event: "messages",
    prefix: '[{"content":',
    suffix: `,"id":"${"x".repeat(400)}"},{}]`,
  };
  const writer = new LineWriter();
  writer.line({ seq: 0, entry: { template: shared, text: '"a"' } });
  expect(writer.line({ seq: 1, entry: { template: shared, text: '" token"' } })).toBe('d0\t" token"');
});

test("a reference to an event that defines nothing is an error, not another event's text", async () => {
  const other = new LineReader((seq) => Promise.resolve({ seq, body: "e\tvalues\t{}" }));
  await expect(other.read(5, "a3\tx").next()).rejects.toThrow("Event 5 adds to event 3");
  const reader = new LineReader((seq) => Promise.resolve({ seq, body: "e\tvalues\t{}" }));
  await expect(reader.read(5, 'd3\t"x"').next()).rejects.toThrow("Event 5 refers to event 3");
  await expect(reader.read(5, "v3\tvalues\t0,2,0\t").next()).rejects.toThrow("Event 5 is told by event 3");
});

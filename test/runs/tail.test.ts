// What a run's followers in the same process read from memory is what was told, by the same numbers, or nothing.
import fc from "fast-check";
import { expect, test } from "vitest";
import type { Whole } from "../../server/runs/log/lines.ts";
import { Tail } from "../../server/runs/log/tail.ts";

const steps = fc.array(
  fc.record({ count: fc.integer({ min: 1, max: 900 }), held: fc.integer({ min: 0, max: 50 }) }),
  { maxLength: 12 },
);

const entryOf = (seq: number): Whole => ({ event: "n", data: `${seq}` });

test("memory tells every committed event by its number, or none when its beginning is gone", () => {
  let wholes = 0;
  let goneOnes = 0;
  fc.assert(
    fc.property(steps, fc.nat(100), fc.boolean(), (taken, first, isOver) => {
      const tail = new Tail(first);
      let [next, committed] = [first, first - 1];
      for (const { count, held } of taken) {
        for (const end = next + count; next < end; next += 1) tail.push(entryOf(next));
        committed = Math.max(committed, next - 1 - held);
        tail.commit(committed);
      }
      if (isOver) {
        tail.close("over");
        committed = next - 1;
      }

      for (const after of [first - 1, first + 10, next - 1500, next - 100, next - 1]) {
        if (after < first - 1) continue;
        const events = tail.after(after);
        if (events) wholes += 1;
        else goneOnes += 1;
        // The newest thousand are always there.
        expect(events !== undefined || after < committed - 1000).toBe(true);
        if (!events) continue;
        const expected = Array.from(
          { length: Math.max(0, committed - after) },
          (_, index) => after + 1 + index,
        );
        expect(events).toEqual(expected.map((seq) => ({ seq, entry: entryOf(seq) })));
      }
    }),
  );
  expect(wholes).toBeGreaterThan(0);
  expect(goneOnes).toBeGreaterThan(0);
});

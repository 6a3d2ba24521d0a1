// What a stream tells before it ends or fails is taken out of it whole, however fast it comes.
import fc from "fast-check";
import { expect, test } from "vitest";
import { Arrivals, readAhead } from "../../server/runs/stream/read-ahead.ts";

const ticks = async (count: number): Promise<void> => {
  for (let tick = 0; tick < count; tick += 1) await Promise.resolve();
};

test("every item comes, also those right before the end, and a failure behind all of them", async () => {
  const law = fc.asyncProperty(
    fc.array(fc.nat(6), { maxLength: 12 }),
    fc.array(fc.constant(0), { maxLength: 4 }),
    fc.boolean(),
    fc.nat(6),
    async (waits, others, fails, last) => {
      const arrivals = new Arrivals<string>();
      async function* source(): AsyncGenerator<string> {
        for (const [at, wait] of waits.entries()) {
          await ticks(wait);
          yield `item ${at}`;
        }
        await ticks(last);
        if (fails) throw new Error("over");
      }
      for (const at of others.keys()) arrivals.push(`other ${at}`);
      const came: string[] = [];
      const reading = (async () => {
        for await (const items of readAhead(source(), arrivals)) came.push(...items);
      })();
      const end = await reading.catch((error: unknown) => error);
      expect(end).toEqual(fails ? new Error("over") : undefined);
      const expected = [...waits.map((_, at) => `item ${at}`), ...others.map((_, at) => `other ${at}`)];
      expect(came.toSorted()).toEqual(expected.toSorted());
      const own = came.filter((one) => one.startsWith("item"));
      expect(own).toEqual(waits.map((_, at) => `item ${at}`));
    },
  );
  await fc.assert(law, { numRuns: 2000 });
});

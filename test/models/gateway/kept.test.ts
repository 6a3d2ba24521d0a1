import fc from "fast-check";
import { expect, test } from "vitest";
import { Kept } from "../../../server/models/gateway/kept.ts";

const pieces = fc.array(fc.uint8Array({ maxLength: 40_000 }), { maxLength: 30 });

test("keeps all that was pushed, or the end of it", () => {
  fc.assert(
    fc.property(pieces, fc.integer({ min: 1, max: 100_000 }), (pushed, most) => {
      const kept = new Kept(most);
      for (const piece of pushed) kept.push(piece);

      const all = Buffer.concat(pushed);
      const bytes = kept.bytes();
      expect(Buffer.compare(bytes, all.subarray(all.length - bytes.length))).toBe(0);
      expect(kept.isTail).toBe(bytes.length < all.length);
      expect(bytes.length).toBeGreaterThanOrEqual(Math.min(all.length, most));
      expect(bytes.length).toBeLessThanOrEqual(
        Math.max(2 * most, 16_384, ...pushed.map((piece) => piece.length)),
      );
    }),
  );
});

test("what was read of it stays as it was", () => {
  const kept = new Kept(10_000);
  kept.push(new Uint8Array(16_000).fill(1));
  const before = kept.bytes();

  for (let more = 0; more < 8; more += 1) kept.push(new Uint8Array(5000).fill(2));

  expect(before).toEqual(new Uint8Array(16_000).fill(1));
});

// Equal requests at the same time make one call, and nobody who waits for it is forgotten.
import { expect, test } from "vitest";
import { Flights } from "../../server/models/caching/flights.ts";
import type { Turn } from "../../server/models/caching/flights.ts";

const LONG_MS = 10_000;
const SHORT_MS = 30;

type Land = Extract<Turn<string>, { land: unknown }>["land"];

function landOf(turn: Turn<string>): Land {
  if (turn === "alone" || !("land" in turn)) throw new Error("Somebody else leads.");
  return turn.land;
}

async function lead(flights: Flights<string>, ms = LONG_MS): Promise<Land> {
  const turn = await flights.join("k", ms);
  return landOf(turn);
}

test("the first one leads, all others get what he brings", async () => {
  const flights = new Flights<string>();
  const land = await lead(flights);
  const others = Array.from({ length: 99 }, () => flights.join("k", LONG_MS));
  land({ value: "it" });
  expect(new Set(await Promise.all(others))).toEqual(new Set([{ value: "it" }]));
  await lead(flights);
});

test("when the leader fails one other leads, and the rest wait for that one", async () => {
  const flights = new Flights<string>();
  const land = await lead(flights);
  const others = Array.from({ length: 9 }, () => flights.join("k", LONG_MS));
  land({ isLost: true });
  landOf(await Promise.race(others))({ value: "it" });
  const turns = await Promise.all(others);
  expect(turns.filter((turn) => turn !== "alone" && "value" in turn)).toHaveLength(8);
});

test("who has followed three that were lost asks for himself", async () => {
  const flights = new Flights<string>();
  const last = flights.join("k", LONG_MS);
  const others = Array.from({ length: 9 }, () => flights.join("k", LONG_MS));
  for (const turn of [last, ...others]) {
    const mine = await turn;
    if (mine !== "alone" && "land" in mine) mine.land({ isLost: true });
  }
  const turns = await Promise.all(others);
  expect(turns.filter((turn) => turn === "alone")).toHaveLength(7);
});

test("what only its asker can use frees all others at once", async () => {
  const flights = new Flights<string>();
  const land = await lead(flights);
  const others = [flights.join("k", LONG_MS), flights.join("k", LONG_MS)];
  land({ isPrivate: true });
  expect(await Promise.all(others)).toEqual(["alone", "alone"]);
});

test("nobody waits beyond his time for one who never lands", async () => {
  const flights = new Flights<string>();
  await lead(flights);
  expect(await flights.join("k", SHORT_MS)).toBe("alone");
});

test("one who never lands is followed by nobody when his time is over", async () => {
  const flights = new Flights<string>();
  await lead(flights, 1);
  const turn = await flights.join("k", LONG_MS);
  expect(turn).toHaveProperty("land");
});

test("who is not waited for any more leaves, and the others stay", async () => {
  const flights = new Flights<string>();
  const land = await lead(flights);
  const gone = new AbortController();
  const [leaving, staying] = [flights.join("k", LONG_MS, gone.signal), flights.join("k", LONG_MS)];
  gone.abort(new Error("cancelled"));
  await expect(leaving).rejects.toThrow("cancelled");
  land({ value: "it" });
  expect(await staying).toEqual({ value: "it" });
});

test("who comes while an answer is being kept shares it", async () => {
  const flights = new Flights<string>();
  const land = await lead(flights);
  const kept = Promise.withResolvers<void>();
  land({ value: "it" }, kept.promise);
  expect(await flights.join("k", LONG_MS)).toEqual({ value: "it" });
  kept.resolve();
});

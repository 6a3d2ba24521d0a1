// The engine's figures beside their goals. Everything runs on one machine, the clients too: read times as ratios.
import { loadavg } from "node:os";
import { parseArgs } from "node:util";
import { startOfflineModel } from "../server/models/offline/server.ts";
import { eventLog } from "./engine/log.ts";
import { claim, queued } from "./engine/queue.ts";
import type { Figures } from "./engine/queue.ts";
import { crossInstance, firstToken, idleReaders } from "./engine/streams.ts";
import { openScratchDatabase } from "./scratch.ts";

export async function engine(args: string[]): Promise<void> {
  const { values } = parseArgs({
    args,
    options: { json: { type: "boolean" }, short: { type: "boolean" }, only: { type: "string" } },
  });
  const part = values.short ? 0.1 : 1;
  const scratch = await openScratchDatabase();
  const model = await startOfflineModel({});
  const measures: Record<string, () => Promise<Figures>> = {
    claim: () => claim(scratch, 2000 * part),
    queued: () => queued(scratch, model.url, 300 * part),
    first: () => firstToken(scratch, model.url, 100 * part),
    log: () => eventLog(scratch, 1000 * part),
    cross100: () => crossInstance(scratch, model.url, 100 * part),
    cross500: () => crossInstance(scratch, model.url, 500 * part),
    cross1000: () => crossInstance(scratch, model.url, 1000 * part),
    idle: () => idleReaders(scratch, model.url, 1000 * part),
  };
  const wanted = values.only?.split(",") ?? Object.keys(measures);
  const figures: Figures = {};
  try {
    for (const name of wanted) {
      if (!values.json) console.error(`${name} … (load ${loadavg()[0]?.toFixed(1) ?? ""})`);
      Object.assign(figures, await measures[name]?.());
    }
  } finally {
    await model.stop();
    await scratch.close();
  }
  if (values.json) console.log(JSON.stringify(figures));
  else for (const [name, figure] of Object.entries(figures)) console.log(`| ${name} | ${figure} |`);
}

// Servers as operators run them, and what Linux says of their work.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { readFileSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";

const TICKS_PER_SECOND = 100;
const PAGE_BYTES = 4096;

export interface ServerProcess {
  readonly url: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** @param args after `holdfast` */
export async function startServer(
  args: string[],
  databaseUrl: string,
  modelUrl: string,
): Promise<ServerProcess> {
  const { PATH = "", HOME = "" } = process.env;
  const child = spawn(
    "node",
    ["--max-semi-space-size=32", "--heap-growing-percent=50", "server/cli.ts", ...args],
    {
      env: {
        PATH,
        HOME,
        DATABASE_URL: databaseUrl,
        PORT: "0",
        OPENAI_API_KEY: "none",
        OPENAI_BASE_URL: modelUrl,
        HOLDFAST_CONFIG: "bench/engine/langgraph.json",
        HOLDFAST_DRAIN_MS: "0",
        HOLDFAST_LOG_LEVEL: "error",
        HOLDFAST_SLOTS: "2000",
      },
      stdio: ["ignore", "pipe", "inherit"],
    },
  );
  let out = "";
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  const end = Date.now() + 20_000;
  while (!out.includes("Ready")) {
    if (child.exitCode !== null || Date.now() > end) throw new Error(`holdfast did not start: ${out}`);
    await delay(50);
  }
  return { url: /Ready on (\S+)/.exec(out)?.[1] ?? "", pid: child.pid ?? 0, stop: () => ended(child) };
}

/** CPU seconds and resident bytes of a process. */
export function usageOf(pid: number): { cpu: number; rss: number } {
  const stat = readFileSync(`/proc/${pid}/stat`, "utf8");
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return {
    cpu: (Number(fields[11]) + Number(fields[12])) / TICKS_PER_SECOND,
    rss: Number(fields[21]) * PAGE_BYTES,
  };
}

export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))] ?? Number.NaN;
}

async function ended(child: ChildProcess): Promise<void> {
  const exit = new Promise((resolve) => child.once("exit", resolve));
  child.kill("SIGTERM");
  await Promise.race([exit, delay(15_000, undefined, { ref: false })]);
  if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
}

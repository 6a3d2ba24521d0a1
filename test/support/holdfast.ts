// The holdfast command as a user runs it: its own process, its own environment, its output and exit code.
import { spawn } from "node:child_process";
import type { ChildProcess } from "node:child_process";
import { join } from "node:path";
import { suiteKeys } from "./keys.ts";
import { until } from "./until.ts";

export interface Finished {
  readonly code: number | null;
  readonly out: string;
  readonly err: string;
}

export interface Running {
  readonly process: ChildProcess;
  out(): string;
  err(): string;
  /** Resolves when standard output holds `text`; fails when the process ends before. */
  says(text: string, withinMs?: number): Promise<void>;
  readonly ended: Promise<Finished>;
}

// Many processes of the same code are started: what one has compiled the others need not.
const COMPILED = join(process.cwd(), "node_modules/.cache/holdfast-test");

/**
 * Starts `holdfast <args>` with these settings and no others of ours.
 * @param cli the file of the command, if not the one of this clone
 */
export function startHoldfast(
  args: string[],
  env: Record<string, string> = {},
  cli = "server/cli.ts",
): Running {
  const { PATH = "", HOME = "" } = process.env;
  const sealed = suiteKeys === undefined ? {} : { HOLDFAST_KEYS: suiteKeys };
  const child = spawn("node", [cli, ...args], {
    env: { PATH, HOME, HOLDFAST_LOG_LEVEL: "error", NODE_COMPILE_CACHE: COMPILED, ...sealed, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  let [out, err, isOver] = ["", "", false];
  child.stdout.on("data", (chunk: Buffer) => (out += chunk.toString()));
  child.stderr.on("data", (chunk: Buffer) => (err += chunk.toString()));
  const ended = new Promise<Finished>((resolve) => {
    child.once("close", (code) => {
      isOver = true;
      resolve({ code, out, err });
    });
  });
  const says = async (text: string, withinMs = 45_000): Promise<void> => {
    await until(() => out.includes(text) || isOver, `holdfast to say ${text}`, withinMs);
    if (!out.includes(text)) throw new Error(`holdfast ended without saying "${text}": ${out}${err}`);
  };
  return { process: child, out: () => out, err: () => err, says, ended };
}

export const holdfast = (args: string[], env: Record<string, string> = {}): Promise<Finished> =>
  startHoldfast(args, env).ended;

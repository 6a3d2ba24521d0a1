// npm run bench -- <name> [options]: the numbers of the README, each by one command.
import process from "node:process";

const benches: Record<string, () => Promise<(args: string[]) => Promise<void>>> = {
  engine: async () => (await import("./engine.ts")).engine,
  checkpoints: async () => (await import("./checkpoints.ts")).checkpoints,
  api: async () => (await import("./api.ts")).api,
  retrieval: async () => (await import("./retrieval.ts")).retrieval,
  caches: async () => (await import("./caches.ts")).caches,
  tokens: async () => (await import("./tokens.ts")).tokens,
  redaction: async () => (await import("./redaction.ts")).redaction,
  resilience: async () => (await import("./resilience.ts")).resilience,
};

const [name = "", ...args] = process.argv.slice(2);
const load = benches[name];
if (load) await (await load())(args);
else {
  console.error(`Usage: npm run bench -- <${Object.keys(benches).join("|")}> [--json]`);
  process.exitCode = 2;
}

// A Redis for tests, behind a relay that can be cut or made silent: of its own where redis-server is installed, else the
// one at 127.0.0.1:6379.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { createServer, connect } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { until } from "./until.ts";

export interface TestRedis {
  /** Through the relay. */
  readonly url: string;
  /** `cut`: nobody listens, and connections break. `silent`: what is sent stays without an answer. */
  set(state: "on" | "cut" | "silent"): Promise<void>;
  stop(): Promise<void>;
}

const HOST = "127.0.0.1";

export async function startRedis(): Promise<TestRedis> {
  const { port, stop } = await startProcess();
  const sockets = new Set<Socket>();
  let isSilent = false;
  const relay = createServer((near) => {
    const far = connect(port, HOST);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on("data", (data) => void (isSilent || to.write(data)));
      from.on("error", () => undefined); // its end is told by close
      from.on("close", () => {
        sockets.delete(from);
        to.destroy();
      });
    }
  });
  const listen = async (on: number): Promise<void> => {
    relay.listen(on, HOST);
    await once(relay, "listening");
  };
  const cut = async (): Promise<void> => {
    if (!relay.listening) return;
    relay.close();
    for (const socket of sockets) socket.destroy();
    await once(relay, "close");
  };
  await listen(0);
  const { port: own } = relay.address() as AddressInfo;
  return {
    url: `redis://${HOST}:${own}`,
    set: async (state) => {
      isSilent = state === "silent";
      if (state === "cut") await cut();
      else if (!relay.listening) await listen(own);
    },
    stop: async () => {
      await cut();
      await stop();
    },
  };
}

async function startProcess(): Promise<{ port: number; stop: () => Promise<void> }> {
  const port = await freePort();
  const child = spawn("redis-server", ["--port", String(port), "--bind", HOST, "--save", ""], {
    stdio: "ignore",
  });
  const [failed] = await Promise.race([once(child, "error"), once(child, "spawn")]);
  if (failed) return { port: 6379, stop: async () => {} };
  await until(() => answers(port), "Redis to listen");
  return {
    port,
    stop: async () => {
      const gone = once(child, "exit");
      child.kill();
      await gone;
    },
  };
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, HOST);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, HOST);
  await once(server, "listening");
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, "close");
  return port;
}

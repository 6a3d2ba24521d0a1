// One address in front of several servers, as a load balancer has it. It can lose a connection at a place that a test
// names, in the way a network does: what came before that place has arrived, and then the connection is reset, or
// nothing comes any more.
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import { now } from "../../server/clock.ts";

export interface Balancer {
  readonly url: string;
  /**
   * Resets the first connection over which `mark` comes from a server for the `nth` time, right behind it.
   * Later connections are whole.
   */
  resetBehind(mark: string, nth: number): void;
  /** The same, but the connection stays open and says nothing more. */
  silenceBehind(mark: string, nth: number): void;
  /** How many connections were reset or silenced. */
  resets(): number;
  /** The last pieces that have passed, for whoever wants to know why a test failed: when, whose, which way, what. */
  passed(): string;
  stop(): Promise<void>;
}

const PIECE = 2000;
const PIECES = 400;

interface Trap {
  readonly mark: string;
  readonly nth: number;
  readonly isSilent: boolean;
}

/**
 * Passes each connection to the first of these servers that takes one.
 * @param inTurn begin with another server for each connection
 */
export async function startBalancer(
  targets: readonly string[],
  { inTurn = false }: { inTurn?: boolean } = {},
): Promise<Balancer> {
  const ports = targets.map((target) => Number(new URL(target).port));
  const sockets = new Set<Socket>();
  let trap: Trap | undefined;
  let [resets, dealt] = [0, 0];
  const pieces: string[] = [];
  const startedAt = now();
  const note = (client: Socket, way: "<" | ">", chunk: Buffer): void => {
    const text = chunk.subarray(0, PIECE).toString();
    pieces.push(`${now() - startedAt} ms, ${client.remotePort} ${way} ${text}`);
    if (pieces.length > PIECES) pieces.shift();
  };

  /** Passes on what `target` sends, until the trap is sprung. */
  const answer = (target: Socket, client: Socket): void => {
    let seen: Buffer = Buffer.alloc(0);
    target.on("data", (chunk: Buffer) => {
      note(client, "<", chunk);
      const all = trap ? Buffer.concat([seen, chunk]) : chunk;
      const sprung = trap;
      const end = sprung && endOf(all, sprung);
      if (!sprung || end === undefined) {
        if (trap) seen = all;
        client.write(chunk);
        return;
      }
      trap = undefined;
      resets += 1;
      const rest = all.subarray(seen.length, end);
      target.removeAllListeners("data").removeAllListeners("end").removeAllListeners("close").pause();
      if (sprung.isSilent) {
        client.write(rest);
        return;
      }
      target.destroy();
      client.write(rest, () => client.resetAndDestroy());
    });
    target.once("end", () => client.end());
  };
  const tryNext = (client: Socket, [port, ...others]: readonly number[]): void => {
    if (port === undefined) {
      client.destroy();
      return;
    }
    const target = connect(port, "127.0.0.1");
    let isConnected = false;
    target.once("connect", () => {
      isConnected = true;
      client.on("data", (chunk: Buffer) => note(client, ">", chunk));
      client.pipe(target);
      answer(target, client);
      client.once("close", () => target.destroy());
      target.once("close", () => client.destroySoon());
    });
    target.once("error", () => (isConnected ? client.destroy() : tryNext(client, others)));
  };
  const server = createServer((client) => {
    sockets.add(client);
    client.once("close", () => sockets.delete(client));
    client.on("error", () => undefined); // the client left
    const first = inTurn ? dealt % ports.length : 0;
    dealt += 1;
    tryNext(client, [...ports.slice(first), ...ports.slice(0, first)]);
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  // A listening TCP server has an address with a port.
  const { port } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${port}`,
    resetBehind: (mark, nth) => (trap = { mark, nth, isSilent: false }),
    silenceBehind: (mark, nth) => (trap = { mark, nth, isSilent: true }),
    resets: () => resets,
    passed: () => pieces.join("\n"),
    stop: async () => {
      for (const socket of sockets) socket.destroy();
      server.close();
      await once(server, "close");
    },
  };
}

/** The place right behind the nth mark; undefined while there are fewer. */
function endOf(text: Buffer, { mark, nth }: Trap): number | undefined {
  let end = 0;
  for (let count = 0; count < nth; count += 1) {
    const at = text.indexOf(mark, end);
    if (at < 0) return undefined;
    end = at + mark.length;
  }
  return end;
}

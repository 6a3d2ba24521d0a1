// Stands between one server and its database and breaks the line in the ways a network does: cut, silent for a while
// (what was sent arrives later), or cut after a statement was executed and before its answer.
import { once } from "node:events";
import { connect, createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";

export interface Proxy {
  /** `databaseUrl` as it is reached through this proxy; `name` tells the database who connects. */
  url(name: string): string;
  /** Breaks every connection off. */
  cut(): void;
  /** Nothing passes any more, and nobody is told; new connections hang too. */
  freeze(): void;
  /** What was held back arrives. */
  thaw(): void;
  /**
   * Lets the next statement that contains one of `texts` reach the database and cuts before its answer.
   * Resolves when that has happened.
   */
  cutBeforeAnswer(texts: readonly string[]): Promise<void>;
  /** Waits for no statement any more. */
  disarm(): void;
  close(): Promise<void>;
}

interface Link {
  readonly client: Socket;
  readonly server: Socket;
  /** Its next answer is never delivered. */
  isCondemned: boolean;
}

interface Trap {
  readonly texts: readonly string[];
  readonly sprung: () => void;
}

export async function startProxy(databaseUrl: string): Promise<Proxy> {
  const target = new URL(databaseUrl);
  const links = new Set<Link>();
  let isFrozen = false;
  let trap: Trap | undefined;

  const drop = (link: Link): void => {
    links.delete(link);
    link.client.destroy();
    link.server.destroy();
  };
  const send = (from: Socket, to: Socket, chunk: Buffer): void => {
    if (to.write(chunk)) return;
    from.pause();
    to.once("drain", () => isFrozen || from.resume());
  };
  const open = (client: Socket): void => {
    const server = connect({ host: target.hostname, port: Number(target.port || 5432) });
    const link: Link = { client, server, isCondemned: false };
    links.add(link);
    client.on("data", (chunk) => {
      if (trap?.texts.some((text) => chunk.includes(text))) link.isCondemned = true;
      send(client, server, chunk);
    });
    server.on("data", (chunk) => {
      if (!link.isCondemned) return send(server, client, chunk);
      drop(link);
      trap?.sprung();
      trap = undefined;
    });
    for (const socket of [client, server]) {
      socket.setNoDelay(true);
      socket.on("error", () => drop(link)); // either side gone: so is the other
      socket.on("close", () => drop(link));
      if (isFrozen) socket.pause();
    }
  };

  const listener = createServer(open).listen(0, "127.0.0.1");
  await once(listener, "listening");
  // A listening TCP server has an address with a port.
  const { port } = listener.address() as AddressInfo;
  return {
    url: (name) => {
      const url = new URL(databaseUrl);
      url.hostname = "127.0.0.1";
      url.port = String(port);
      url.searchParams.set("application_name", name);
      return url.href;
    },
    cut: () => {
      for (const link of links) drop(link);
    },
    freeze: () => {
      isFrozen = true;
      for (const { client, server } of links) for (const socket of [client, server]) socket.pause();
    },
    thaw: () => {
      isFrozen = false;
      for (const { client, server } of links) for (const socket of [client, server]) socket.resume();
    },
    cutBeforeAnswer: (texts) => new Promise((resolve) => (trap = { texts, sprung: resolve })),
    disarm: () => {
      trap = undefined;
    },
    close: async () => {
      for (const link of links) drop(link);
      const closed = once(listener, "close");
      listener.close();
      await closed;
    },
  };
}

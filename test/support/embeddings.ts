// An OpenAI-compatible endpoint for embeddings whose vectors have a meaning, and which fails when it is told to.
import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { text } from "node:stream/consumers";
import { vectorOf } from "../fixtures/embed.ts";

interface EmbeddingsRequest {
  readonly model: string;
  readonly input: string | readonly string[];
  readonly dimensions?: number;
}

export interface FakeEmbeddings {
  /** Base URL with `/v1`. */
  readonly url: string;
  readonly requests: EmbeddingsRequest[];
  /** What the next requests are answered with: a status, other vectors, or nothing at all. */
  next: { status?: number; vector?: readonly number[]; silent?: true };
  stop(): Promise<void>;
}

export async function startFakeEmbeddings(): Promise<FakeEmbeddings> {
  const server = createServer(async (request, response) => {
    const asked = JSON.parse(await text(request)) as EmbeddingsRequest;
    fake.requests.push(asked);
    const { status = 200, vector, silent } = fake.next;
    if (silent) return;
    const data = [asked.input].flat().map((one, index) => ({
      object: "embedding",
      index,
      embedding: vector ?? vectorOf(one),
    }));
    const body = status === 200 ? { object: "list", model: asked.model, data } : { error: { message: "no" } };
    response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body));
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  // A listening TCP server has an address with a port.
  const { port } = server.address() as AddressInfo;
  const fake: FakeEmbeddings = {
    url: `http://127.0.0.1:${port}/v1`,
    requests: [],
    next: {},
    stop: async () => {
      server.closeAllConnections();
      server.close();
      await once(server, "close");
    },
  };
  return fake;
}

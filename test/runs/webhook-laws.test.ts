// Call-backs, whatever their receiver does: law by law, for any sequence of what it may answer.
import { randomUUID } from "node:crypto";
import { createServer } from "node:net";
import type { AddressInfo, Socket } from "node:net";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { uuidv7 } from "../../server/ids.ts";
import { openEgress } from "../../server/models/egress.ts";
import { startWebhooks } from "../../server/runs/webhook.ts";
import { listWebhooks } from "../../server/storage/webhooks.ts";
import type { WebhookRow } from "../../server/storage/webhooks.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { until } from "../support/until.ts";

/** What comes back of a request, byte for byte; then the connection is over, unless the answer says otherwise. */
const ANSWERS = {
  taken: "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n",
  "taken, with half a body": "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf",
  "taken, after a hint": "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
  "a failure": "HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
  "too often": "HTTP/1.1 429 Slow\r\nretry-after: 3600\r\ncontent-length: 0\r\n\r\n",
  "moved on": "HTTP/1.1 307 Moved\r\nlocation: /elsewhere\r\ncontent-length: 0\r\n\r\n",
  "not changed": "HTTP/1.1 304 Not Modified\r\n\r\n",
  "a login": "HTTP/1.1 401 No\r\nwww-authenticate: Basic\r\ncontent-length: 0\r\n\r\n",
  gone: "HTTP/1.1 410 Gone\r\ncontent-length: 0\r\n\r\n",
  garbage: "\0\xff no HTTP at all\r\n\r\n",
  "a broken head": "HTTP/1.1 200 OK\r\ncontent-len",
  "two lengths": "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
  nothing: "",
} as const;
type Answer = keyof typeof ANSWERS;
const isTaken = (one: Answer): boolean => one.startsWith("taken");

const MOST_TRIES = 4;
const backOffMs = Array.from({ length: MOST_TRIES - 1 }, () => 2);
let scratch: TestDatabase;
let url = "";
/** What the receiver answers next, by path, and what it got. */
const answers = new Map<string, Answer[]>();
const got: { path: string; id: string; answer: Answer }[] = [];
const egress = openEgress({ allow: ["127.0.0.1"] });

function answer(socket: Socket): void {
  let text = "";
  socket.on("error", () => undefined);
  socket.on("data", (part) => {
    text += part.toString("latin1");
    const [head = "", body] = text.split("\r\n\r\n");
    const length = Number(/content-length: (\d+)/i.exec(head)?.[1] ?? 0);
    if (body === undefined || body.length < length) return;
    const path = head.split(" ")[1] ?? "";
    const next = answers.get(path)?.shift() ?? "taken";
    got.push({ path, id: /webhook-id: (\S+)/i.exec(head)?.[1] ?? "", answer: next });
    text = "";
    socket.end(Buffer.from(ANSWERS[next], "latin1"));
  });
}
const receiver = createServer(answer);

beforeAll(async () => {
  scratch = await testDatabase();
  await new Promise<void>((resolve) => void receiver.listen(0, "127.0.0.1", resolve));
  url = `http://127.0.0.1:${(receiver.address() as AddressInfo).port}`;
});
afterAll(async () => {
  await egress.close();
  receiver.close();
  await scratch.close();
});

async function send(planned: ReadonlyMap<string, readonly Answer[]>, senders: number): Promise<WebhookRow[]> {
  await scratch.database.query("truncate holdfast.webhooks");
  answers.clear();
  got.length = 0;
  for (const [path, all] of planned) answers.set(path, [...all]);
  const paths = [...planned.keys()];
  await scratch.database.query(
    `insert into holdfast.webhooks (webhook_id, run_id, url, payload)
     select i, r, u, '{"n":1}' from unnest($1::uuid[], $2::uuid[], $3::text[]) as x (i, r, u)`,
    [paths.map(() => uuidv7()), paths.map(() => randomUUID()), paths.map((path) => url + path)],
  );
  const options = { database: scratch.database, log: openLog("error"), egress, secrets: [], backOffMs };
  const started = Array.from({ length: senders }, () =>
    startWebhooks({
      ...options,
      log: { ...options.log, error: () => undefined, warn: () => undefined },
    }),
  );
  const all = (): Promise<WebhookRow[]> => listWebhooks(scratch.database, { state: undefined, limit: 100 });
  await until(
    async () => {
      for (const one of started) one.wake();
      return (await all()).every(({ state }) => state !== "pending");
    },
    "all call-backs to be decided",
    10_000,
  );
  await Promise.all(started.map((one) => one.stop()));
  return all();
}

test("a call-back is sent under one id until it is taken, refused for good, or has failed often enough", async () => {
  const kinds = Object.keys(ANSWERS) as Answer[];
  const plan = fc.array(fc.array(fc.constantFrom(...kinds), { maxLength: MOST_TRIES }), {
    minLength: 1,
    maxLength: 8,
  });
  const law = fc.asyncProperty(plan, fc.integer({ min: 1, max: 3 }), async (all, senders) => {
    const planned = new Map(all.map((one, index): [string, Answer[]] => [`/${index}`, one]));
    const rows = await send(planned, senders);
    for (const [path, wanted] of planned) {
      const row = rows.find((one) => one.url === url + path);
      const tries = [...wanted, ...Array.from({ length: MOST_TRIES }, (): Answer => "taken")].slice(
        0,
        MOST_TRIES,
      );
      const last = tries.findIndex((one) => isTaken(one) || one === "gone");
      const expected = last < 0 ? tries : tries.slice(0, last + 1);
      const mine = got.filter((one) => one.path === path);
      expect(mine.map((one) => one.answer)).toEqual(expected);
      expect(new Set(mine.map(({ id }) => id))).toEqual(new Set([row?.webhook_id]));
      const isDelivered = isTaken(expected.at(-1) ?? "nothing");
      expect([row?.state, row?.attempts, (row?.error ?? "") === ""]).toEqual([
        isDelivered ? "delivered" : "parked",
        expected.length,
        isDelivered,
      ]);
    }
    expect(got.filter(({ path }) => !planned.has(path))).toEqual([]);
  });
  await fc.assert(law, { numRuns: 15 });
});

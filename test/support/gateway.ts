// The gateway of a server over the database of a test, a run on whose behalf it is asked, and a provider on loopback that
// answers with the bytes that a test gives it.
import { randomUUID } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { RequestListener } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { uuidv7 } from "../../server/ids.ts";
import { onBehalfOf } from "../../server/models/gateway/context.ts";
import type { CallContext } from "../../server/models/gateway/context.ts";
import type { Gateway } from "../../server/models/gateway/gateway.ts";
import { openGateway } from "../../server/models/gateway/open.ts";
import { openPrivacy } from "../../server/privacy/guard.ts";
import { insertBudget, listPeriods } from "../../server/storage/budgets.ts";
import { CallNotes } from "../../server/storage/call-notes.ts";
import type { Database } from "../../server/storage/database.ts";
import { defaultScope } from "../../server/storage/scope.ts";
import { openLog } from "../../server/telemetry/log.ts";
import { openTestCaches } from "./caches.ts";
import { runsOf } from "./runs.ts";

type Json = Record<string, unknown>;

interface Charged {
  readonly state: string;
  readonly model: string;
  readonly input: number | null;
  readonly output: number | null;
}

interface Init {
  readonly signal?: AbortSignal;
  readonly headers?: Readonly<Record<string, string>>;
}

export interface GatewayRig {
  readonly gateway: Gateway;
  readonly context: CallContext;
  /** Asks on behalf of the run, as its client would. */
  readonly send: (url: string, body: Json, init?: Init) => Promise<Response>;
  /** The calls of the run, in their order. */
  readonly calls: () => Promise<Charged[]>;
  /** Tokens of the one budget. */
  readonly budget: () => Promise<{ readonly spent: number; readonly reserved: number } | undefined>;
}

/** @param options a budget of so many tokens, the only one from here on; `models` is what the models file says */
export async function openRig(
  database: Database,
  { tokens, models = {} }: { tokens: number; models?: Json },
): Promise<GatewayRig> {
  const log = openLog("error");
  const { caches } = await openTestCaches(database);
  const folder = mkdtempSync(join(tmpdir(), "models-"));
  const modelsFile = join(folder, "models.json");
  writeFileSync(modelsFile, JSON.stringify({ defaults: { retries: 0 }, ...models }));
  const gateway = openGateway(
    {
      modelsFile,
      modelTimeoutMs: 20_000,
      maxOutputTokens: 1000,
      cacheResponses: "deterministic",
      cacheTtlSeconds: 300,
    },
    { database, caches, log, notes: new CallNotes(database, log), onOpen: () => undefined },
  );
  rmSync(folder, { recursive: true });
  await database.query("update holdfast.budgets set retired_at = now() where retired_at is null");
  const id = uuidv7();
  await insertBudget(database, defaultScope, {
    budget_id: id,
    scope: "tenant",
    scope_id: "default",
    unit: "tokens",
    period: "total",
    max: tokens,
  });
  const owner = await (await runsOf(database)).newRun();
  const context: CallContext = {
    payer: async () => ({ owner, assistantId: randomUUID(), userId: undefined }),
    fail: () => undefined,
    call: (request, of) => gateway.call(request, of),
    graphId: "any",
    guard: openPrivacy({ mode: "off", graphs: {}, rules: [], names: false }).of("any"),
    caches,
    nodeHits: 0,
    ahead: [],
    shown: () => Promise.resolve(),
    pending: 0,
    leaving: new Set(),
    refusal: undefined,
  };
  return {
    gateway,
    context,
    send: (url, body, init = {}) => {
      const headers = { "content-type": "application/json", ...init.headers };
      const request = { url, body: JSON.stringify(body), init: { method: "POST", ...init, headers } };
      return onBehalfOf(context, () => gateway.call(request, context));
    },
    calls: () =>
      database.query<Charged & Json>(
        `select state, model, input_tokens::int as input, output_tokens::int as output from holdfast.model_calls
          where run_id = $1 order by call_id`,
        [owner.runId],
      ),
    budget: async () => {
      const [period] = await listPeriods(database, [id], { isRunning: true, limit: 1 });
      return period && { spent: period.spent, reserved: period.reserved };
    },
  };
}

export interface Answering {
  /** Of its chat endpoint. */
  readonly url: string;
  /** The bodies it got. */
  readonly asked: Json[];
  readonly close: () => void;
}

/** A provider that answers like this when it has got the whole request. */
export async function answering(answer: RequestListener): Promise<Answering> {
  const asked: Json[] = [];
  const server = createServer((request, response) => {
    let text = "";
    request.on("data", (piece: Buffer) => void (text += piece.toString()));
    request.on("end", () => {
      asked.push(JSON.parse(text) as Json);
      answer(request, response);
    });
  });
  await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1/chat/completions`,
    asked,
    close: () => {
      server.closeAllConnections();
      server.close();
    },
  };
}

/** A frame of a stream. */
export const frameOf = (data: Json): string => `data: ${JSON.stringify(data)}\n\n`;

export const said = (content: string, more: Json = {}): string =>
  frameOf({ choices: [{ index: 0, delta: { content }, ...more }] });

export const STREAM = { "content-type": "text/event-stream" };

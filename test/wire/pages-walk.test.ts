// Pages of the official hooks' controller, opened at any moment of a thread's life and used at random: when all is quiet,
// each shows what the thread holds, and that nothing is at work.
import { randomUUID } from "node:crypto";
import { setTimeout as delay } from "node:timers/promises";
import { Client } from "@langchain/langgraph-sdk";
import { StreamController } from "@langchain/langgraph-sdk/stream";
import { Client as Client11 } from "langgraph-sdk-1.11";
import { StreamController as StreamController11 } from "langgraph-sdk-1.11/stream";
import { afterAll, beforeAll, expect, test } from "vitest";
import { seeded } from "../../server/commands/chaos/random.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startTestServer } from "../support/server.ts";
import type { TestServer } from "../support/server.ts";
import { until } from "../support/until.ts";

const SETTINGS = { HOLDFAST_CONFIG: "test/fixtures/pages.langgraph.json", HOLDFAST_SLOTS: "2" };

let scratch: TestDatabase;
let fronts: TestServer[];
let worker: TestServer;
beforeAll(async () => {
  scratch = await testDatabase();
  // Who answers executes nothing, so that runs wait for a while.
  fronts = [
    await startTestServer(scratch.url, SETTINGS, "http"),
    await startTestServer(scratch.url, SETTINGS, "http"),
  ];
  worker = await startTestServer(scratch.url, SETTINGS);
});
afterAll(async () => {
  await Promise.all([...fronts, worker].map((server) => server.stop()));
  await scratch.close();
});

const SDKS = [
  { sdk: "1.15", Make: Client, Control: StreamController },
  {
    sdk: "1.11",
    Make: Client11 as unknown as typeof Client,
    Control: StreamController11 as unknown as typeof StreamController,
  },
];

const STRATEGIES = ["enqueue", "interrupt", "rollback"] as const;

interface Page {
  readonly name: string;
  readonly controller: StreamController;
  /** Whether it follows the thread: the official hooks do not while a thread is idle and they submit nothing. */
  follows: boolean;
}

async function walk(seed: number): Promise<void> {
  const random = seeded(seed);
  const anyPage = (): Page | undefined => (pages.length > 0 ? random.pick(pages) : undefined);
  const threadId = randomUUID();
  const client = new Client({
    apiUrl: random.pick(fronts).url,
    apiKey: null,
    callerOptions: { maxRetries: 0 },
  });
  await client.threads.create({ threadId, graphId: "chat" });
  const pages: Page[] = [];
  const did: string[] = [];
  const typed = (): { messages: { type: "human"; id: string; content: string }[] } => ({
    messages: [
      {
        type: "human",
        id: randomUUID(),
        content: `${String(did.length)}${random.pick(["", "", "?", " fail"])}`,
      },
    ],
  });
  const active = async (): Promise<string[]> =>
    (await client.runs.list(threadId, { limit: 100 }))
      .filter(({ status }) => status === "pending" || status === "running")
      .map(({ run_id: id }) => id);
  const ops: Record<string, () => Promise<unknown>> = {
    open: async () => {
      const { sdk, Make, Control } = random.pick(SDKS);
      const transport = random.pick(["sse", "websocket"] as const);
      const apiUrl = random.pick(fronts).url;
      const name = `${String(pages.length)} ${sdk} ${transport}`;
      const controller: StreamController = new Control({
        assistantId: "chat",
        client: new Make({ apiUrl, apiKey: null }) as never,
        threadId,
        transport,
      });
      const page = { name, controller, follows: false };
      pages.push(page);
      const atWork = await active();
      await controller.hydrate(threadId);
      const isStill = (await active()).some((id) => atWork.includes(id));
      page.follows ||= isStill || controller.rootStore.getSnapshot().isLoading;
      return name;
    },
    close: async () => {
      const [gone] = pages.splice(random.between(0, Math.max(0, pages.length - 1)), 1);
      await gone?.controller.dispose();
      return gone?.name;
    },
    submit: async () => {
      const page = anyPage();
      if (!page) return undefined;
      const multitaskStrategy = random.pick(STRATEGIES);
      page.follows = true;
      void page.controller.submit(typed(), { multitaskStrategy }).catch(() => undefined);
      await delay(20); // nobody types faster; the hooks send two messages at once in any order
      return `${page.name} ${multitaskStrategy}`;
    },
    respond: async () => {
      const page = anyPage();
      if (!page || page.controller.rootStore.getSnapshot().interrupts.length === 0) return undefined;
      void page.controller.respond("yes").catch(() => undefined);
      return page.name;
    },
    run: async () => {
      const multitaskStrategy = random.pick(STRATEGIES);
      await client.runs.create(threadId, "chat", { input: typed(), multitaskStrategy });
      return multitaskStrategy;
    },
    cancel: async () => {
      const [id] = await active();
      const action = random.pick(["interrupt", "rollback"] as const);
      if (id) await client.runs.cancel(threadId, id, false, action).catch(() => undefined);
      return id && action;
    },
    "hand over": async () => {
      const old = worker;
      worker = await startTestServer(scratch.url, SETTINGS);
      await old.stop();
    },
    rest: async () => {
      const ms = random.pick([5, 20, 50, 150]);
      await delay(ms);
      return ms;
    },
  };
  const names = [
    "open",
    "open",
    "close",
    "submit",
    "submit",
    "respond",
    "run",
    "run",
    "cancel",
    "hand over",
    "rest",
    "rest",
    "rest",
  ];
  for (let at = 0; at < 14; at += 1) {
    const name = at === 0 ? "run" : random.pick(names);
    did.push(`${name} ${String(await ops[name]?.())}`);
  }
  try {
    let quiet = 0; // what was submitted last may be on its way
    await until(
      async () => (quiet = (await active()).length === 0 ? quiet + 1 : 0) > 20,
      "the thread to be quiet",
    );
    const state = await client.threads.getState<{ messages: { content: string }[] }>(threadId);
    const { status } = await client.threads.get(threadId);
    const wanted = {
      texts: (state.values.messages ?? []).map(({ content }) => content),
      isLoading: false,
      asks: status === "interrupted" ? state.tasks.flatMap(({ interrupts }) => interrupts).length : 0,
    };
    for (const { name, controller } of pages.filter(({ follows }) => follows)) {
      const shown = (): { texts: string[]; isLoading: boolean; asks: number } => {
        const { messages, isLoading, interrupts } = controller.rootStore.getSnapshot();
        // The hooks keep what was typed here although its run went before it began; older ones also half an answer.
        const isLeft = ({ type, text }: (typeof messages)[number]): boolean =>
          !wanted.texts.includes(text) && (type === "human" || name.includes("1.11"));
        const texts = messages.filter((message) => !isLeft(message)).map(({ text }) => text);
        // A question that another page's message has passed over stays.
        return { texts, isLoading, asks: Math.min(interrupts.length, wanted.asks) };
      };
      const isRight = (): boolean => JSON.stringify(shown()) === JSON.stringify(wanted);
      await until(isRight, name, 3000).catch(() => undefined);
      expect({ name, ...shown() }).toEqual({ name, ...wanted });
    }
  } catch (error) {
    throw new Error(`seed ${String(seed)}:\n${did.join("\n")}\n${(error as Error).message}`, {
      cause: error,
    });
  } finally {
    await Promise.all(pages.map(({ controller }) => controller.dispose()));
  }
}

// SEEDS=1-200 walks further.
const [FIRST = 1, LAST = 8] = (process.env["SEEDS"] ?? "1-8").split("-").map(Number);
const seeds = Array.from({ length: LAST - FIRST + 1 }, (_, at) => FIRST + at);
test.each(seeds)("walk %i", walk, 60_000);

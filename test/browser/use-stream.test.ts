// The official React hook, unchanged, in a browser: what a person sees while servers die and pages are loaded again.
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { startBalancer } from "../support/balancer.ts";
import type { Balancer } from "../support/balancer.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { startFakeModel } from "../support/model.ts";
import type { FakeModel } from "../support/model.ts";
import { startBrowser, startSite } from "./site.ts";
import type { Site } from "./site.ts";

const TOKENS = 100;
const SLOW = `fake-slow-${TOKENS}tok-30ms`;
const WHOLE = Array.from({ length: TOKENS }, (_, index) => `tok${index}`).join(" ");

let [scratch, model, site, browser]: [TestDatabase?, FakeModel?, Site?, Browser?] = [];
let servers: Running[] = [];
let balancer: Balancer | undefined;
let page: Page;

beforeAll(async () => {
  [scratch, model, site, browser] = await Promise.all([
    testDatabase(),
    startFakeModel(),
    startSite(),
    startBrowser(),
  ]);
});

afterAll(async () => {
  await Promise.all([browser?.close(), site?.stop(), model?.stop()]);
  await scratch?.close();
});

beforeEach(async () => {
  const settings = {
    DATABASE_URL: scratch?.url ?? "",
    OPENAI_BASE_URL: model?.url ?? "",
    HOLDFAST_CONFIG: "test/fixtures/slow.langgraph.json",
    HOLDFAST_POOL_SIZE: "5",
    PORT: "0",
  };
  servers = [startHoldfast(["serve"], settings), startHoldfast(["serve"], settings)];
  await Promise.all(servers.map((server) => server.says("Ready on")));
  balancer = await startBalancer(servers.map(urlOf));
  page = await (browser ?? expect.fail("no browser")).newPage();
});

afterEach(async () => {
  await page.close();
  for (const server of servers) server.process.kill("SIGTERM");
  await Promise.all(servers.map(({ ended }) => ended));
  await balancer?.stop();
});

const urlOf = (server: Running): string => /Ready on (\S+)/.exec(server.out())?.[1] ?? "";

async function open(graph: string, modelName = ""): Promise<void> {
  const query = new URLSearchParams({
    api: balancer?.url ?? "",
    graph,
    ...(modelName ? { model: modelName } : {}),
  });
  await page.goto(`${site?.url ?? ""}/?${query.toString()}`);
}

const click = (name: string): Promise<void> => page.getByRole("button", { name, exact: true }).last().click();
const write = (text: string): Promise<void> => page.locator("input").fill(text);

async function ask(text: string): Promise<void> {
  await write(text);
  await click("send");
}

/** What stands on the page: who said what, whether something is under way, and an error. */
async function seen(): Promise<{ said: string[]; isLoading: boolean; error: string }> {
  const said = await page
    .locator("li")
    .evaluateAll((items) =>
      items.map((item) => `${item.dataset["type"]}: ${item.querySelector("p")?.textContent}`),
    );
  const main = page.locator("main");
  return {
    said,
    isLoading: (await main.getAttribute("data-loading")) === "true",
    error: (await main.getAttribute("data-error")) ?? "",
  };
}

async function shows(said: string[]): Promise<void> {
  await expect.poll(seen, { timeout: 30_000 }).toEqual({ said, isLoading: false, error: "" });
}
const shown = (text: string): Promise<void> => page.getByText(text).first().waitFor();

test("an answer appears token by token, and a second question goes on from it", async () => {
  await open("talk", SLOW);
  await ask("first");
  await shown("tok0 tok1");
  expect((await seen()).isLoading).toBe(true);
  await shows(["human: first", `ai: ${WHOLE}`]);
  await ask("second");
  await shows(["human: first", `ai: ${WHOLE}`, "human: second", `ai: ${WHOLE}`]);
});

test("a page that is loaded again in the middle of an answer shows all of it, once", async () => {
  await open("talk", SLOW);
  await ask("go on");
  await shown("tok0 tok1 tok2");
  expect((await seen()).isLoading).toBe(true);
  await page.reload();
  await shows(["human: go on", `ai: ${WHOLE}`]);
});

test("when the server that gives an answer is killed, the page shows the whole answer, once", async () => {
  await open("talk", SLOW);
  await ask("hold fast");
  await shown("tok0 tok1 tok2");
  servers[0]?.process.kill("SIGKILL");
  await shows(["human: hold fast", `ai: ${WHOLE}`]);
  const threadId = new URL(page.url()).hash.slice(1);
  const runs = await scratch?.database.query(
    "select attempt, state from holdfast.runs where thread_id = $1",
    [threadId],
  );
  expect(runs).toEqual([{ attempt: 2, state: "success" }]);
});

test("an edited question and an answer asked for again are branches, and the page shows the newest", async () => {
  await open("talk", "fake-echo");
  await ask("tea");
  await shows(["human: tea", "ai: tea"]);
  await write("coffee");
  await click("edit");
  await shows(["human: coffee", "ai: coffee"]);
  await click("again");
  await shows(["human: coffee", "ai: coffee"]);
  const branches = page.locator('li[data-type="ai"]');
  await expect.poll(() => branches.getAttribute("data-branches")).toBe("2");
  await expect.poll(() => page.locator('li[data-type="human"]').getAttribute("data-branches")).toBe("2");
});

test("a question of the graph stands on the page, also after loading it again, and its answer ends the run", async () => {
  await open("asksThenWaits");
  await click("begin");
  await shown("go on?");
  await page.reload();
  await shown("go on?");
  await write("yes");
  await click("answer");
  await expect.poll(() => page.locator("#log").textContent()).toBe('["answer:yes"]');
  await expect.poll(() => page.locator("#question").textContent()).toBe("");
});

test("stop ends the run, and the thread takes the next question", async () => {
  await open("talk", SLOW);
  await ask("too long");
  await shown("tok0 tok1");
  await click("stop");
  await expect.poll(async () => (await seen()).isLoading).toBe(false);
  await ask("next");
  await expect.poll(async () => (await seen()).said.at(-1), { timeout: 20_000 }).toBe(`ai: ${WHOLE}`);
});

// A browser before two servers that run behind one address, and a page with a chat on it.
import type { Browser, Page } from "playwright-core";
import { afterAll, afterEach, beforeAll, beforeEach, expect } from "vitest";
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

interface Seen {
  readonly said: string[];
  readonly isLoading: boolean;
  readonly error: string;
}

export interface Stage {
  readonly page: Page;
  readonly servers: readonly Running[];
  readonly scratch: TestDatabase;
  /** Opens the chat with a graph and, for some, a model. */
  readonly open: (graph: string, model?: string) => Promise<void>;
  readonly click: (name: string) => Promise<void>;
  readonly write: (text: string) => Promise<void>;
  readonly ask: (text: string) => Promise<void>;
  /** What stands on the page: who said what, whether something is under way, and an error. */
  readonly seen: () => Promise<Seen>;
  /** Resolves when this, and nothing else, stands on the page and nothing is under way. */
  readonly shows: (said: string[]) => Promise<void>;
  /** Resolves when this text stands somewhere. */
  readonly shown: (text: string) => Promise<void>;
}

/**
 * @param path the page, below the site
 * @param more what its query says besides
 */
export function useStage(path: string, more: Record<string, string> = {}): Stage {
  let [scratch, model, site, browser]: [TestDatabase?, FakeModel?, Site?, Browser?] = [];
  let servers: Running[] = [];
  let balancer: Balancer | undefined;
  let logged: string[] = [];
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
    logged = [];
    page.on("console", (message) => logged.push(message.text()));
    page.on("pageerror", (error) => logged.push(error.message));
  });
  afterEach(async ({ task }) => {
    if (task.result?.state === "fail") {
      const what = [await page.content().catch(String), ...logged, balancer?.passed()];
      console.error(`The page, what it said, and what it was sent:\n${what.join("\n")}`);
    }
    await page.close();
    for (const server of servers) server.process.kill("SIGTERM");
    await Promise.all(servers.map(({ ended }) => ended));
    await balancer?.stop();
  });

  const stage: Stage = {
    get page() {
      return page;
    },
    get servers() {
      return servers;
    },
    get scratch() {
      return scratch ?? expect.fail("no database");
    },
    open: async (graph, modelName = "") => {
      const about = { api: balancer?.url ?? "", graph, ...(modelName ? { model: modelName } : {}), ...more };
      await page.goto(`${site?.url ?? ""}/${path}?${new URLSearchParams(about).toString()}`);
    },
    click: (name) => page.getByRole("button", { name, exact: true }).last().click(),
    write: (text) => page.locator("input").fill(text),
    ask: async (text) => {
      await stage.write(text);
      await stage.click("send");
    },
    seen: async () => {
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
    },
    shows: async (said) => {
      await expect
        .poll(() => stage.seen(), { timeout: 30_000 })
        .toEqual({ said, isLoading: false, error: "" });
    },
    shown: (text) => page.getByText(text).first().waitFor(),
  };
  return stage;
}

const urlOf = (server: Running): string => /Ready on (\S+)/.exec(server.out())?.[1] ?? "";

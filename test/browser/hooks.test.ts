// The official React hooks, unchanged, in a browser: what a person sees while servers die and pages are loaded again.
import { describe, expect, test } from "vitest";
import { useStage } from "./stage.ts";
import type { Stage } from "./stage.ts";

const TOKENS = 100;
const SLOW = `fake-slow-${TOKENS}tok-30ms`;
const WHOLE = Array.from({ length: TOKENS }, (_, index) => `tok${index}`).join(" ");

const HOOKS = [
  { hook: "useStream of the SDK", page: "", query: {} },
  { hook: "@langchain/react over server-sent events", page: "protocol.html", query: { transport: "sse" } },
  { hook: "@langchain/react over WebSocket", page: "protocol.html", query: { transport: "websocket" } },
];

async function editAndAskAgain({ open, ask, write, click, shows }: Stage): Promise<void> {
  await open("talk", "fake-echo");
  await ask("tea");
  await shows(["human: tea", "ai: tea"]);
  await write("coffee");
  await click("edit");
  await shows(["human: coffee", "ai: coffee"]);
  await click("again");
  await shows(["human: coffee", "ai: coffee"]);
}

describe.each(HOOKS)("$hook", ({ page, query }) => {
  const stage = useStage(page, query);
  const { open, ask, write, click, seen, shows, shown } = stage;

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
    await stage.page.reload();
    await shows(["human: go on", `ai: ${WHOLE}`]);
  });

  test("when the server that gives an answer is killed, the page shows the whole answer, once", async () => {
    await open("talk", SLOW);
    await ask("hold fast");
    await shown("tok0 tok1 tok2");
    stage.servers[0]?.process.kill("SIGKILL");
    await shows(["human: hold fast", `ai: ${WHOLE}`]);
    const threadId = new URL(stage.page.url()).hash.slice(1);
    const runs = await stage.scratch.database.query(
      "select attempt, state from holdfast.runs where thread_id = $1",
      [threadId],
    );
    expect(runs).toEqual([{ attempt: 2, state: "success" }]);
  });

  test("an edited question takes the place of the first one, and an answer may be asked for again", async () => {
    await editAndAskAgain(stage);
    await ask("more");
    await shows(["human: coffee", "ai: coffee", "human: more", "ai: more"]);
    expect((await seen()).error).toBe("");
  });

  test("a question of the graph stands on the page, also after loading it again, and its answer ends the run", async () => {
    await open("asksThenWaits");
    await click("begin");
    await shown("go on?");
    await stage.page.reload();
    await shown("go on?");
    await write("yes");
    await click("answer");
    await expect.poll(() => stage.page.locator("#log").textContent()).toBe('["answer:yes"]');
    await expect.poll(() => stage.page.locator("#question").textContent()).toBe("");
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
});

describe("branches", () => {
  const stage = useStage("");

  test("an edited question and an answer asked for again are branches, and the page shows the newest", async () => {
    await editAndAskAgain(stage);
    const branches = stage.page.locator('li[data-type="ai"]');
    await expect.poll(() => branches.getAttribute("data-branches")).toBe("2");
    await expect
      .poll(() => stage.page.locator('li[data-type="human"]').getAttribute("data-branches"))
      .toBe("2");
  });
});

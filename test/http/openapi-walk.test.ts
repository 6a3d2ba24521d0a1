// A random walk over the served OpenAPI document: whatever is asked, the answer is one that the document promises, and
// never a failure of the server. WALK_SEED=<number> walks the same way again; WALK_REQUESTS sets how far.
import { afterAll, beforeAll, expect, test } from "vitest";
import { seeded } from "../../server/commands/chaos/random.ts";
import { fetchDocument, judgeOf, operationsOf } from "../support/openapi.ts";
import type { Answered, Operation } from "../support/openapi.ts";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { startHoldfast } from "../support/holdfast.ts";
import type { Running } from "../support/holdfast.ts";
import { Seen, Walker } from "../support/walk.ts";
import type { Request } from "../support/walk.ts";

// One walk by default, so that a change is judged by the same one before and after.
const SEED = Number(process.env["WALK_SEED"] ?? 1);
const REQUESTS = Number(process.env["WALK_REQUESTS"] ?? 2000);
/** What lasts as long as a run is left after so long. */
const PATIENCE_MS = 120;
const LIMIT_MS = 10_000;

let [scratch, server]: [TestDatabase?, Running?] = [];
let url = "";
beforeAll(async () => {
  scratch = await testDatabase();
  server = startHoldfast(["serve"], {
    DATABASE_URL: scratch.url,
    PORT: "0",
    HOLDFAST_CONFIG: "test/fixtures/walk.langgraph.json",
    HOLDFAST_DRAIN_MS: "0",
  });
  await server.says("Ready on");
  url = /Ready on (\S+)/.exec(server.out())?.[1] ?? "";
});
afterAll(async () => {
  server?.process.kill("SIGTERM");
  await server?.ended;
  await scratch?.close();
});

const lasts = ({ responses, parameters }: Operation): boolean =>
  /Values|event-stream/.test(JSON.stringify(responses["200"] ?? {})) ||
  parameters.some(({ name }) => name === "wait");

/** Sends a request and reads what comes within the patience; undefined when not even headers came. */
async function send(
  { path, thread: _thread, ...init }: Request,
  patienceMs: number,
): Promise<Answered | undefined> {
  const signal = AbortSignal.timeout(patienceMs);
  let [text, answer]: [string, Response?] = [""];
  try {
    answer = await fetch(url + path, { ...init, signal });
    const decoder = new TextDecoder();
    for await (const chunk of answer.body ?? []) text += decoder.decode(chunk, { stream: true });
    return { status: answer.status, headers: answer.headers, text, isCut: false };
  } catch (error) {
    if (!signal.aborted) throw error;
    if (!answer) return undefined;
    const isStream = answer.headers.get("content-type") === "text/event-stream";
    return { status: answer.status, headers: answer.headers, text: isStream ? text : undefined, isCut: true };
  }
}

function noteAnswer(seen: Seen, { headers, text, isCut }: Answered): void {
  if (headers.get("content-type") === "application/json" && text) seen.note(JSON.parse(text));
  const place = /^\/threads\/(.+)\/runs\/(.+)$/.exec(headers.get("content-location") ?? "");
  if (!place) return;
  const [, thread = "", run = ""] = place;
  seen.note({ thread_id: thread, run_id: run });
  if (isCut) seen.noteLive(thread);
}

test(
  `${REQUESTS} requests by chance are answered as documented, and nothing fails (WALK_SEED=${SEED})`,
  { timeout: 120_000 },
  async () => {
    const document = await fetchDocument(url);
    const operations = operationsOf(document);
    // Most of what can be asked is about threads and runs, which others take away.
    const creating = operations.filter(({ name }) =>
      /^POST \/threads(\/\{thread_id\}\/runs(\/(stream|wait))?)?$/.test(name),
    );
    const judge = judgeOf(document);
    const random = seeded(SEED);
    const seen = new Seen();
    const walker = new Walker(random, document.components.schemas, seen);
    const faults: string[] = [];
    const done = new Set<string>();
    // A walk that is refused everywhere would prove nothing: it goes on until each operation has succeeded.
    for (
      let count = 0;
      count < REQUESTS || (done.size < operations.length && count < 3 * REQUESTS);
      count += 1
    ) {
      const operation = random.pick(random.chance(0.2) ? creating : operations);
      const request = walker.requestFor(operation);
      const answer = await send(request, lasts(operation) ? PATIENCE_MS : LIMIT_MS);
      const { status = 0 } = answer ?? {};
      const fault = answer
        ? (judge(operation, answer) ?? (status >= 500 ? `status ${status}` : undefined))
        : lasts(operation)
          ? undefined
          : "no answer";
      if (fault) {
        const told = `${request.method} ${request.path} ${request.body ?? ""}`.slice(0, 600);
        faults.push(`${operation.name}: ${fault}\n  ${told}\n  ${answer?.text?.slice(0, 300) ?? ""}`);
      }
      if (answer?.headers.get("x-holdfast-code") === "thread_not_found") seen.forget(request.thread);
      // A socket cannot be opened by a plain request: that it is refused is all there is.
      if ((status >= 200 && status < 300) || status === 426) done.add(operation.name);
      if (answer && status === 200) noteAnswer(seen, answer);
    }
    // Whatever clients ask, it is no failure of the server: nothing is logged as one, in the background neither.
    const logged = server?.err().split("\n") ?? [];
    expect([...faults, ...logged.filter((line) => line.startsWith('{"level":"error"'))]).toEqual([]);
    expect(operations.map(({ name }) => name).filter((name) => !done.has(name))).toEqual([]);
  },
);

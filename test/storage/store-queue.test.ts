// The queue between a graph and its store: it sleeps until there is work, and loses none.
import { AsyncBatchedStore, BaseStore, InMemoryStore } from "@langchain/langgraph-checkpoint";
import type { Operation, OperationResults } from "@langchain/langgraph-checkpoint";
import { beforeAll, expect, test } from "vitest";
import { turn } from "../../server/clock.ts";
import { wakeStoreQueues } from "../../server/storage/store/queue.ts";

beforeAll(() => wakeStoreQueues());

/** Notes how many operations come together, and fails when it is told to. */
class NotingStore extends BaseStore {
  readonly #inner = new InMemoryStore();
  readonly sizes: number[] = [];
  failure: Error | undefined;
  override async batch<Operations extends Operation[]>(
    operations: Operations,
  ): Promise<OperationResults<Operations>> {
    this.sizes.push(operations.length);
    await turn();
    if (this.failure) throw this.failure;
    return this.#inner.batch(operations);
  }
}

function open(): { store: NotingStore; queue: AsyncBatchedStore } {
  const store = new NotingStore();
  const queue = new AsyncBatchedStore(store);
  queue.start();
  return { store, queue };
}

const timers = (): number => process.getActiveResourcesInfo().filter((name) => name === "Timeout").length;

test("a queue without work has no timer", async () => {
  const before = timers();
  const { queue } = open();
  await turn();
  expect(timers()).toBe(before);
  expect(queue.isRunning).toBe(true);
  await queue.stop();
  expect(queue.isRunning).toBe(false);
});

test("what is asked at the same moment is one batch, what comes meanwhile the next one", async () => {
  const { store, queue } = open();
  const first = Promise.all([queue.put(["n"], "a", { n: 1 }), queue.put(["n"], "b", { n: 2 })]);
  await turn();
  const second = Promise.all([queue.get(["n"], "a"), queue.get(["n"], "missing"), queue.search(["n"])]);
  await first;
  expect(await second).toMatchObject([{ value: { n: 1 } }, null, [{ key: "a" }, { key: "b" }]]);
  expect(store.sizes).toEqual([2, 3]);
});

test("a batch that fails fails all who asked, and the next one goes on", async () => {
  const { store, queue } = open();
  store.failure = new RangeError("no");
  const asked = [queue.get(["n"], "a"), queue.put(["n"], "a", { n: 1 })];
  expect((await Promise.allSettled(asked)).map(({ status }) => status)).toEqual(["rejected", "rejected"]);
  store.failure = undefined;
  expect(await queue.get(["n"], "a")).toBeNull();
});

test("a queue that is stopped first does what it was asked", async () => {
  const { store, queue } = open();
  const put = queue.put(["n"], "a", { n: 1 });
  await queue.stop();
  await put;
  expect(await store.get(["n"], "a")).toMatchObject({ value: { n: 1 } });
});

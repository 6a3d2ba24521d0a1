// LangGraph puts a queue before the store of each graph that runs, so that what nodes ask at the same moment is one batch.
// Its own looks for work every millisecond, also while a graph waits for a model: 400 such runs took 16 % of a core,
// without a store in use. Here work wakes the queue. A graph that brings its own copy of LangGraph keeps that copy's.
import { AsyncBatchedStore, validateNamespace } from "@langchain/langgraph-checkpoint";
import type { BaseStore, Operation } from "@langchain/langgraph-checkpoint";
import { promisesFirst, turn } from "../../clock.ts";

interface Waiting {
  readonly operation: Operation;
  readonly answered: PromiseWithResolvers<unknown>;
}

/** LangGraph's class with what is private in it. */
interface StoreQueue {
  readonly store: BaseStore;
  readonly queue: Map<number, Waiting>;
  nextKey: number;
  running: boolean;
  /** What stop() waits for. */
  processingTask: Promise<void> | null;
}

/** Lets the queues of this process sleep until there is work. */
export function wakeStoreQueues(): void {
  Object.assign(AsyncBatchedStore.prototype, { start, stop, put, enqueueOperation });
}

function start(this: StoreQueue): void {
  this.running = true;
}

// The last that a graph waits for before it ends its stream. If it failed, the stream loses what nobody has read yet.
async function stop(this: StoreQueue): Promise<void> {
  this.running = false;
  await this.processingTask;
  await promisesFirst();
}

// Its own drops what a node says of how the item is to be indexed.
async function put(
  this: StoreQueue,
  namespace: string[],
  key: string,
  value: Record<string, unknown>,
  index?: false | string[],
): Promise<void> {
  validateNamespace(namespace);
  await enqueueOperation.call(this, { namespace, key, value, ...(index === undefined ? {} : { index }) });
}

function enqueueOperation(this: StoreQueue, operation: Operation): Promise<unknown> {
  const answered = Promise.withResolvers<unknown>();
  this.queue.set(this.nextKey, { operation, answered });
  this.nextKey += 1;
  this.processingTask ??= work(this);
  return answered.promise;
}

async function work(queue: StoreQueue): Promise<void> {
  while (queue.queue.size > 0) {
    await turn(); // nodes that were woken together ask together
    const batch = [...queue.queue.values()];
    queue.queue.clear();
    try {
      const results: unknown[] = await queue.store.batch(batch.map(({ operation }) => operation));
      for (const [index, { answered }] of batch.entries()) answered.resolve(results[index]);
    } catch (error) {
      for (const { answered } of batch) answered.reject(error);
    }
  }
  queue.processingTask = null;
}

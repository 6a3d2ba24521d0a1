// A stream that fails loses what nobody has taken out of it yet. What a graph told before one of its nodes failed must
// not depend on how fast it is recorded, so it is taken out at once. LangGraph holds nothing back for a slow reader
// either: this needs no more memory.

/** Items that have come, and that nobody has taken yet. */
export class Arrivals<Item> {
  #items: Item[] = [];
  #news = Promise.withResolvers<void>();

  push(item: Item): void {
    this.#items.push(item);
    this.wake();
  }

  /** Lets who waits look, though there may be nothing. */
  wake(): void {
    this.#news.resolve();
  }

  /** Resolves when there may be some. */
  async some(): Promise<void> {
    await this.#news.promise;
    this.#news = Promise.withResolvers();
  }

  take(): readonly Item[] {
    const items = this.#items;
    this.#items = [];
    return items;
  }
}

/**
 * The items of a stream, taken out as soon as they are there, as many at a time as have come meanwhile: a failure comes
 * behind all of them.
 * @param arrivals where others may put what is to be told between them
 */
export async function* readAhead<Item>(
  source: AsyncIterable<Item>,
  arrivals = new Arrivals<Item>(),
): AsyncGenerator<readonly Item[]> {
  const iterator = source[Symbol.asyncIterator]();
  let isOver = false;
  const read = async (): Promise<void> => {
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next())
      arrivals.push(next.value);
  };
  const reading = read().finally(() => {
    isOver = true;
    arrivals.wake();
  });
  reading.catch(() => undefined); // told behind the items
  try {
    for (let isLast = false; !isLast;) {
      await arrivals.some();
      // Together: what comes between them would be lost.
      isLast = isOver;
      const items = arrivals.take();
      if (items.length > 0) yield items;
    }
    await reading;
  } finally {
    if (!isOver) await iterator.return?.();
  }
}

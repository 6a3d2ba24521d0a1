// A stream that fails loses what nobody has taken out of it yet. What a graph told before one of its nodes failed must
// not depend on how fast it is recorded, so it is taken out at once. LangGraph holds nothing back for a slow reader
// either: this needs no more memory.

/**
 * The items of a stream, taken out as soon as they are there, as many at a time as have come meanwhile: a failure comes
 * behind all of them.
 */
export async function* readAhead<Item>(source: AsyncIterable<Item>): AsyncGenerator<readonly Item[]> {
  const iterator = source[Symbol.asyncIterator]();
  let taken: Item[] = [];
  let news = Promise.withResolvers<void>();
  let isOver = false;
  const read = async (): Promise<void> => {
    for (let next = await iterator.next(); next.done !== true; next = await iterator.next()) {
      taken.push(next.value);
      news.resolve();
    }
  };
  const reading = read().finally(() => {
    isOver = true;
    news.resolve();
  });
  reading.catch(() => undefined); // told behind the items
  try {
    for (let isLast = false; !isLast;) {
      await news.promise;
      news = Promise.withResolvers();
      isLast = isOver;
      const items = taken;
      taken = [];
      if (items.length > 0) yield items;
    }
    await reading;
  } finally {
    if (!isOver) await iterator.return?.();
  }
}

// A text whose vector a provider made before is not sent to it again, on whatever server.
import { randomUUID } from "node:crypto";
import { afterAll, expect, test } from "vitest";
import { startFakeEmbeddings } from "../support/embeddings.ts";
import { TEST_KEYS } from "../support/keys.ts";
import { startTestServer, useServer } from "../support/server.ts";

const fake = await startFakeEmbeddings();
afterAll(() => fake.stop());
const settings = {
  HOLDFAST_CONFIG: "test/fixtures/meaning.langgraph.json",
  HOLDFAST_KEYS: TEST_KEYS,
  OPENAI_BASE_URL: fake.url,
};
const held = useServer(settings);

test("the vector of a text is asked for once, for items and questions alike", async () => {
  const user = randomUUID();
  const second = await startTestServer(held.scratch.url, settings);
  for (const { client } of [held.server, second])
    await client.store.putItem([user], "a", { text: "likes tea" });
  const { items } = await second.client.store.searchItems([user], { query: "likes tea" });
  await second.stop();
  expect(fake.requests.map(({ input }) => input)).toEqual([["likes tea"]]);
  expect(items.map(({ key, score }) => [key, score?.toFixed(3)])).toEqual([["a", "1.000"]]);
});

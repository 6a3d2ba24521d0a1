// LangGraph's own contract suite for savers, run on ours.
import { deltaChannelHistoryTests, validate } from "@langchain/langgraph-checkpoint-validation";
import { testDatabase } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { CheckpointsOfAnyThread } from "../support/checkpoints.ts";

let scratch: TestDatabase;

const initializer = {
  checkpointerName: "Checkpoints",
  beforeAll: async () => {
    scratch = await testDatabase();
  },
  afterAll: () => scratch.close(),
  createCheckpointer: () => new CheckpointsOfAnyThread(scratch.database),
  destroyCheckpointer: async () => {
    await scratch.database.query(
      "truncate public.checkpoints, public.checkpoint_blobs, public.checkpoint_writes, holdfast.threads cascade",
    );
  },
};

validate(initializer);
deltaChannelHistoryTests(initializer);

// The Database contract on the Postgres of the suite.
import { afterAll, beforeAll } from "vitest";
import { emptyDatabase, openTestPool } from "../support/database.ts";
import type { TestDatabase } from "../support/database.ts";
import { testDatabaseContract } from "../support/database-contract.ts";

let scratch: TestDatabase;

beforeAll(async () => {
  scratch = await emptyDatabase();
});

afterAll(() => scratch.close());

testDatabaseContract((options = {}) => openTestPool(scratch.url, options));

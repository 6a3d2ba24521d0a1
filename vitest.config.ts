import { defineConfig } from "vitest/config";

// What looks at stored values, or writes them in ways of its own, is tested once more on databases that are sealed.
const SEALED = [
  "test/http/{auth-laws,store,store-meaning,thread-copy,thread-search}.test.ts",
  "test/runs/store.test.ts",
];

export default defineConfig({
  test: {
    projects: [
      {
        extends: true,
        test: { name: "fast", include: ["test/**/*.test.ts"], exclude: ["test/browser/**"] }, // npm run test:browser
      },
      { extends: true, test: { name: "sealed", include: SEALED, env: { TEST_SEALED: "1" } } },
    ],
    globals: true, // the validation suite of LangGraph finds describe and it there
    globalSetup: "test/support/setup.ts",
    testTimeout: 20_000,
    hookTimeout: 60_000,
    maxWorkers: 3,
    isolate: false, // a process for each file would load LangGraph two hundred times
    coverage: { provider: "v8", include: ["server/**", "graph/**"] },
  },
});

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    globals: true, // the validation suite of LangGraph finds describe and it there
    include: ["test/**/*.test.ts"],
    exclude: ["test/browser/**"], // npm run test:browser
    globalSetup: "test/support/setup.ts",
    testTimeout: 20_000,
    hookTimeout: 60_000,
    maxWorkers: 2,
    coverage: { provider: "v8", include: ["server/**", "graph/**"] },
  },
});

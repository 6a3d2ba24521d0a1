import { defineConfig } from "vitest/config";

// Apart from the other tests, because they need a browser on the machine.
export default defineConfig({
  test: {
    include: ["test/browser/**/*.test.ts"],
    globalSetup: "test/support/setup.ts",
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // A page on a busy machine takes its time.
    expect: { poll: { timeout: 15_000 } },
  },
});

// The page /docs in a browser: it shows every operation, and asks nobody but this server for anything.
import type { Browser } from "playwright-core";
import { afterAll, beforeAll, expect, test } from "vitest";
import { useServer } from "../support/server.ts";
import { startBrowser } from "./site.ts";

const held = useServer();
let browser: Browser | undefined;

beforeAll(async () => {
  browser = await startBrowser();
});
afterAll(() => browser?.close());

const opened = (): Browser => browser ?? expect.fail("no browser");

test("the page shows the API, sends no request to anywhere else, and breaks its policy nowhere", async () => {
  const page = await opened().newPage();
  const asked: string[] = [];
  const complaints: string[] = [];
  page.on("request", (request) => asked.push(request.url()));
  page.on("console", (message) => {
    if (message.type() === "error" || message.text().includes("Content Security Policy"))
      complaints.push(message.text());
  });
  page.on("pageerror", (error) => complaints.push(error.message));
  await page.goto(`${held.server.url}/docs`);
  await page.getByRole("heading", { name: "Holdfast" }).first().waitFor();
  for (const tag of ["Assistants", "Threads", "Runs", "Crons", "Store"])
    await page.getByText(tag, { exact: true }).first().waitFor();
  await page.getByText("Threads", { exact: true }).first().click();
  await page.getByText("Create a thread").first().click();
  await page.getByText("/threads").first().waitFor();
  await page.getByRole("button", { name: "Test Request" }).first().click();
  await page.getByRole("button", { name: /^Send/ }).first().click();
  await page.getByText("200 OK").waitFor();
  await page.waitForLoadState("networkidle");
  const { origin } = new URL(held.server.url);
  const isOurs = (url: string): boolean => url.startsWith(`${origin}/`) || /^(data|blob):/.test(url);
  expect(asked.filter((url) => !isOurs(url))).toEqual([]);
  expect(asked).toContain(`${origin}/openapi.json`);
  expect(complaints).toEqual([]);
});

// Documents that are written from code equal what the code says.
// To write them anew: npx vitest run test/documents.test.ts -u
import { parseEnv } from "node:util";
import { expect, test } from "vitest";
import { renderConfigurationPage, renderEnvExample } from "../server/config-docs.ts";
import { readConfig, settings } from "../server/config.ts";

const names = Object.values(settings).map(({ env }) => env);

test(".env.example lists what server/config.ts reads", async () => {
  await expect(renderEnvExample()).toMatchFileSnapshot("../.env.example");
});

test("docs/configuration.md lists what server/config.ts reads", async () => {
  await expect(renderConfigurationPage()).toMatchFileSnapshot("../docs/configuration.md");
});

test("both name every setting, once", () => {
  const example = [...renderEnvExample().matchAll(/^#([A-Z_]+)=/gm)].map(([, name]) => name);
  const page = [...renderConfigurationPage().matchAll(/^### `([A-Z_]+)`/gm)].map(([, name]) => name);
  expect(example).toEqual(names);
  expect(page).toEqual(names);
});

test("an .env with every line of the example uncommented changes nothing", () => {
  const env = parseEnv(renderEnvExample().replaceAll(/^#(?=[A-Z_]+=)/gm, ""));
  expect(Object.keys(env).toSorted()).toEqual(names.toSorted());
  expect(readConfig(env)).toEqual(readConfig({}));
});

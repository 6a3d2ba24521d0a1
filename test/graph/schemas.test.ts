import { MessagesDeltaValue, MessagesValue } from "@langchain/langgraph";
import { afterEach, expect, test, vi } from "vitest";
import { Input, Output, State } from "../../graph/state.ts";

const propertiesOf = (schema: object): object => ("properties" in schema ? Object(schema.properties) : {});

afterEach(() => vi.unstubAllEnvs());

afterEach(() => {
  vi.unstubAllEnvs();
});

test.each([
  ["plain", MessagesValue],
  ["delta", MessagesDeltaValue],
])("HOLDFAST_MESSAGES=%s decides how messages are kept", async (kept, value) => {
  vi.stubEnv("HOLDFAST_MESSAGES", kept);
  vi.resetModules();
  const state = await import("../../graph/state.ts");
  expect(state.State.fields.messages.constructor.name).toBe(value.constructor.name);
});

test("the input is messages only, so that Studio shows a chat box", () => {
  const properties = propertiesOf(Input.getJsonSchema());
  expect(Object.keys(properties)).toEqual(["messages"]);
  expect(properties).toMatchObject({ messages: { langgraph_type: "messages" } });
});

test("the output is messages and citations, and every channel has a JSON schema", () => {
  expect(Object.keys(propertiesOf(Output.getJsonSchema()))).toEqual(["messages", "citations"]);
  expect(Object.keys(propertiesOf(State.getJsonSchema()))).toEqual([
    "messages",
    "passages",
    "citations",
    "budget",
  ]);
});

// Input that calls tools of the fixture toolbox, and what became of the calls.
import type { Client } from "@langchain/langgraph-sdk";

export interface Told {
  readonly content: string;
  readonly status: string;
  readonly tool_call_id: string;
}

let made = 0;

/** An id that no other call has. */
export const newCallId = (): string => `call_${(made += 1)}_${process.pid}`;

/** The input of a run whose model calls these tools. */
export const calling = (...calls: { name: string; args: object; id?: string }[]): { messages: object[] } => ({
  messages: [
    { role: "user", content: "go" },
    {
      role: "assistant",
      content: "",
      tool_calls: calls.map(({ name, args, id = newCallId() }) => ({ name, args, id, type: "tool_call" })),
    },
  ],
});

/** The messages of tools in a state. */
export const toldIn = (values: unknown): Told[] =>
  (Object(values).messages as (Told & { type: string })[]).filter(({ type }) => type === "tool");

/** Runs the calls on a thread to their end, or to the first question. */
export const run = async (
  client: Client,
  threadId: string,
  payload: { input?: Record<string, unknown> | null; command?: { resume: unknown }; config?: object },
): Promise<Told[]> => toldIn(await client.runs.wait(threadId, "toolbox", payload));

/** What the thread asks people, in order. */
export async function questions(client: Client, threadId: string): Promise<{ id: string; value: unknown }[]> {
  const { interrupts } = await client.threads.get(threadId);
  return Object.values(interrupts)
    .flat()
    .map(({ id = "", value }) => ({ id, value }));
}

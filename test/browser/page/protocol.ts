// The same chat with the hooks of @langchain/react, which speak protocol v2. The query names the API, the graph, the model
// and the transport; the thread stands behind the #, so that a reload finds it again.
import { Client } from "@langchain/langgraph-sdk";
import { useStream } from "@langchain/react";
import { createElement as h, useState } from "react";
import type { ReactNode } from "react";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);
const api = query.get("api") ?? "";
const graph = query.get("graph") ?? "";
const model = query.get("model") ?? undefined;
const transport = query.get("transport") === "websocket" ? "websocket" : "sse";

interface State extends Record<string, unknown> {
  messages?: { type: string; content: string; id?: string }[];
  log?: string[];
}

const button = (name: string, onClick: () => void): ReactNode => h("button", { key: name, onClick }, name);

const client = new Client({ apiUrl: api, apiKey: null });

/** The checkpoint before a message: what the hook notes of it moves on with each step, in the version it pins. */
async function checkpointBefore(messageId: string | undefined): Promise<string | undefined> {
  const threadId = location.hash.slice(1);
  const history = threadId ? await client.threads.getHistory<State>(threadId, { limit: 100 }) : [];
  const first = history.findLast(({ values }) => values.messages?.some(({ id }) => id === messageId));
  return first?.parent_checkpoint?.checkpoint_id ?? undefined;
}

function Chat(): ReactNode {
  // A new thread's id is not given back to the hook: it would read the state in the middle of the first answer, and
  // where the state holds that answer already, pass over the rest of its stream and leave it as it was.
  const [threadId] = useState(() => location.hash.slice(1) || null);
  const [text, setText] = useState("");
  const stream = useStream<State>({
    apiUrl: api,
    assistantId: graph,
    threadId,
    transport,
    onThreadId: (id) => (location.hash = id),
  });
  const ask = (content: string, from?: string): void => {
    const values = { messages: [{ type: "human", content }], ...(model ? { model } : {}) };
    void stream.submit(values, from ? { forkFrom: from } : {});
  };
  const edit = async (messageId: string | undefined): Promise<void> =>
    ask(text, await checkpointBefore(messageId));
  const again = async (messageId: string | undefined): Promise<void> => {
    const from = await checkpointBefore(messageId);
    void stream.submit(null, from ? { forkFrom: from } : {});
  };
  // A question is shown as soon as the state is there, and can be answered once the stream has come to it.
  const answer = async (): Promise<void> => {
    while (!stream.getThread()?.interrupts.length) await new Promise((resolve) => setTimeout(resolve, 20));
    await stream.respond(text);
  };
  const shown = stream.messages.map((message, index) =>
    h(
      "li",
      { key: message.id ?? index, "data-type": message.type },
      h("p", null, message.text),
      message.type === "human"
        ? button("edit", () => void edit(message.id))
        : button("again", () => void again(message.id)),
    ),
  );
  return h(
    "main",
    {
      "data-loading": String(stream.isLoading),
      "data-error": stream.error instanceof Error ? stream.error.message : "",
    },
    h("ol", null, shown),
    h("pre", { id: "log" }, JSON.stringify(stream.values.log ?? [])),
    h("pre", { id: "question" }, stream.interrupt ? JSON.stringify(stream.interrupt.value) : ""),
    h("input", { value: text, onChange: (event) => setText(event.target.value) }),
    button("send", () => ask(text)),
    button("begin", () => void stream.submit({})),
    button("answer", () => void answer()),
    button("stop", () => void stream.stop()),
  );
}

const place = document.querySelector("#chat");
if (place) createRoot(place).render(h(Chat));

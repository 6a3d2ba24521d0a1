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
async function checkpointBefore(
  threadId: string | null,
  messageId: string | undefined,
): Promise<string | undefined> {
  const history = threadId ? await client.threads.getHistory<State>(threadId, { limit: 100 }) : [];
  const first = history.findLast(({ values }) => values.messages?.some(({ id }) => id === messageId));
  return first?.parent_checkpoint?.checkpoint_id ?? undefined;
}

function Chat(): ReactNode {
  const [threadId, setThreadId] = useState(() => location.hash.slice(1) || null);
  const [text, setText] = useState("");
  const stream = useStream<State>({
    apiUrl: api,
    assistantId: graph,
    threadId,
    transport,
    onThreadId: (id) => {
      location.hash = id;
      setThreadId(id);
    },
  });
  const ask = (content: string, from?: string): void => {
    const values = { messages: [{ type: "human", content }], ...(model ? { model } : {}) };
    void stream.submit(values, from ? { forkFrom: from } : {});
  };
  const edit = async (messageId: string | undefined): Promise<void> =>
    ask(text, await checkpointBefore(threadId, messageId));
  const again = async (messageId: string | undefined): Promise<void> => {
    const from = await checkpointBefore(threadId, messageId);
    void stream.submit(null, from ? { forkFrom: from } : {});
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
    button("answer", () => void stream.respond(text)),
    button("stop", () => void stream.stop()),
  );
}

const place = document.querySelector("#chat");
if (place) createRoot(place).render(h(Chat));

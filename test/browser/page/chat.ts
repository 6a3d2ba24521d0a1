// A chat as a user of the official React hook writes one. The query names the API, the graph and the model; the thread
// stands behind the #, so that a reload finds it again.
import type { Checkpoint, Message } from "@langchain/langgraph-sdk";
import { useStream } from "@langchain/langgraph-sdk/react";
import { createElement as h, useState } from "react";
import type { ReactNode } from "react";
import { createRoot } from "react-dom/client";

const query = new URLSearchParams(location.search);
const api = query.get("api") ?? "";
const graph = query.get("graph") ?? "";
const model = query.get("model") ?? undefined;

const button = (name: string, onClick: () => void): ReactNode => h("button", { key: name, onClick }, name);

function Chat(): ReactNode {
  const [threadId, setThreadId] = useState(() => location.hash.slice(1) || null);
  const [text, setText] = useState("");
  const stream = useStream<{ messages: Message[]; model?: string; log?: string[] }>({
    apiUrl: api,
    assistantId: graph,
    threadId,
    reconnectOnMount: true,
    fetchStateHistory: true,
    onThreadId: (id) => {
      location.hash = id;
      setThreadId(id);
    },
  });
  const ask = (content: string, checkpoint?: Checkpoint | null): void => {
    const values = { messages: [{ type: "human" as const, content }], ...(model ? { model } : {}) };
    const from = checkpoint ? { checkpoint } : {};
    void stream.submit(values, {
      streamMode: ["messages-tuple"],
      streamResumable: true,
      onDisconnect: "continue",
      ...from,
    });
  };

  const shown = stream.messages.map((message, index) => {
    const about = stream.getMessagesMetadata(message, index);
    const before = about?.firstSeenState?.parent_checkpoint;
    const branches = String(about?.branchOptions?.length ?? 1);
    const content = typeof message.content === "string" ? message.content : JSON.stringify(message.content);
    return h(
      "li",
      { key: message.id ?? index, "data-type": message.type, "data-branches": branches },
      h("p", null, content),
      message.type === "human"
        ? button("edit", () => ask(text, before))
        : button("again", () => void stream.submit(undefined, before ? { checkpoint: before } : {})),
    );
  });
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
    button("answer", () => void stream.submit(undefined, { command: { resume: text } })),
    button("stop", () => void stream.stop()),
  );
}

const place = document.querySelector("#chat");
if (place) createRoot(place).render(h(Chat));

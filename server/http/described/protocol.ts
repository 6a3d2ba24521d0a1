// The operations of protocol v2 over HTTP. Its WebSocket is no operation that OpenAPI can describe.
import { CommandAnswer, ThreadEvents } from "./answers.ts";
import { command, eventStream } from "../protocol/schemas.ts";
import { json } from "./describe.ts";
import type { Described, Noun } from "./describe.ts";

const following = (id: string): Described => ({
  id,
  summary: "Follow a thread over all its runs",
  about:
    "It stays open, and may be opened before the thread exists. Without a cursor it begins with the newest run.",
  headers: ["Last-Event-ID"],
  body: eventStream,
  answers: { 200: { about: "The events of the thread.", type: "text/event-stream", schema: ThreadEvents } },
  errors: { 404: ["thread_not_found"], 429: ["too_many_streams"], 503: ["server_stopping"] },
});

export const protocol: Noun = {
  tag: "Protocol v2",
  about: "Commands to a thread, and its events over all its runs.",
  operations: {
    "POST /threads/:thread/commands": {
      id: "sendCommand",
      summary: "Send a command to a thread",
      about:
        "run.start, input.respond, state.get, state.listCheckpoints, state.fork, agent.getTree. What is wrong with a command is an answer with `type` error.",
      headers: ["Idempotency-Key"],
      body: command,
      answers: json(CommandAnswer, "What the command came to."),
      errors: { 404: ["thread_not_found"], 409: ["graph_not_served", "state_unreadable"] },
    },
    "GET /threads/:thread/stream/events": {
      id: "openSocket",
      summary: "Open a WebSocket for a thread",
      about: "The same commands and events on one connection, and subscription.subscribe and unsubscribe.",
      answers: { 204: { about: "Never seen: what may be opened is answered with 101." } },
      errors: { 404: ["thread_not_found"], 426: ["upgrade_required"], 429: ["too_many_streams"] },
    },
    "POST /threads/:thread/stream": following("followThread"),
    "POST /threads/:thread/stream/events": following("followThreadEvents"),
  },
};

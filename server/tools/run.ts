// The node of a graph that does what the model's last message calls for. Calls that people must approve are all asked
// about first; only then is anything executed, all of it at the same time. Each call becomes one message, whatever happens.
import { createHash } from "node:crypto";
import { AIMessage, ToolMessage } from "@langchain/core/messages";
import type { BaseMessage } from "@langchain/core/messages";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { redactText } from "../privacy/redact.ts";
import { servicesOf } from "../services.ts";
import { ask } from "./approval.ts";
import type { Question } from "./approval.ts";
import { execute } from "./call.ts";
import type { Call, Result } from "./call.ts";
import { byName } from "./define.ts";
import type { Fitting, Tool } from "./define.ts";
import { failures } from "./failure.ts";
import type { Failure } from "./failure.ts";

/** A call as the model made it. */
interface Asked {
  readonly callId: string;
  /** Of this call and no other, whatever its provider calls it. */
  readonly key: string;
  readonly name: string;
  /** Undefined: they were no JSON. */
  readonly args: unknown;
}

const MAX_CALLS = 16;
const MAX_RESULT = 60_000;

/**
 * A node that executes the calls of the last message of a model and adds a message for each.
 * @example new StateGraph(State).addNode("tools", runTools(tools))
 * @throws GraphUnloadable when two tools have one name; the node throws ToolApprovalRefused, and what ends a run
 */
export function runTools(
  tools: readonly Tool[],
): (
  state: { messages: readonly BaseMessage[] },
  config: LangGraphRunnableConfig,
) => Promise<{ messages: ToolMessage[] }> {
  const known = byName(tools);
  return async ({ messages }, config) => {
    const asked = askedIn(messages, String(config.configurable?.["thread_id"]));
    const calls = await approved(asked, known, config);
    const settled = await Promise.allSettled(calls.map((call) => execute(call, config)));
    const results = settled.map((one) => {
      if (one.status === "rejected") throw one.reason;
      return one.value;
    });
    const { redact = redactText } = servicesOf(config);
    return {
      messages: asked.map((call, index) => messageOf(call, results[index] ?? failures.failed(), redact)),
    };
  };
}

/** What the last message of a model calls for and has not got. */
function askedIn(messages: readonly BaseMessage[], threadId: string): Asked[] {
  const at = messages.findLastIndex((one) => AIMessage.isInstance(one));
  const last = messages[at];
  if (!last || !AIMessage.isInstance(last)) return [];
  // Only what came behind it: some providers use the same ids again.
  const answered = new Set(
    messages.slice(at + 1).flatMap((one) => (ToolMessage.isInstance(one) ? [one.tool_call_id] : [])),
  );
  const { tool_calls: calls = [], invalid_tool_calls: broken = [] } = last;
  return [...calls, ...broken.map(({ id, name = "" }) => ({ id, name, args: undefined }))]
    .map(({ id, name, args }, index) => {
      const key = JSON.stringify([threadId, last.id, index, id]);
      return {
        callId: id ?? `${last.id}-${index}`,
        key: createHash("sha256").update(key).digest("hex"),
        name,
        args,
      };
    })
    .filter(({ callId }) => !answered.has(callId));
}

/** The calls as they may be executed, when everybody who had to be asked has answered. */
async function approved(
  asked: readonly Asked[],
  known: ReadonlyMap<string, Tool>,
  config: LangGraphRunnableConfig,
): Promise<Call[]> {
  const read = await Promise.all(
    asked.map(async ({ name, args }, index) => {
      const tool = known.get(name);
      if (index >= MAX_CALLS) return { tool, work: failures.tooMany(MAX_CALLS) };
      return { tool, work: tool ? await fitting(tool, args) : failures.unknown() };
    }),
  );
  const questions = new Map<number, Question>();
  for (const [index, { tool, work }] of read.entries()) {
    const { callId = "", args } = asked[index] ?? {};
    if (tool && "run" in work && work.needsApproval) questions.set(index, { tool, callId, args });
  }
  const answers = await ask([...questions.values()], config, async ({ tool, callId }, answer) => {
    const about = { tool: tool.name, callId } as const;
    const given = answer?.isApproved ? "tool.approved" : "tool.rejected";
    await servicesOf(config).tools?.audit(
      answer
        ? { ...about, action: given, outcome: "done" }
        : { ...about, action: "tool.answered", outcome: "refused" },
    );
  });
  const places = [...questions.keys()];
  return Promise.all(
    asked.map(async ({ callId, key }, index) => {
      const { tool, work } = read[index] ?? { tool: undefined, work: failures.unknown() };
      const answer = answers[places.indexOf(index)];
      const call = { callId, key, tool };
      if (!tool || !answer) return { ...call, work };
      if (!answer.isApproved) return { ...call, work: failures.rejected() };
      return { ...call, work: answer.args === undefined ? work : await fitting(tool, answer.args) };
    }),
  );
}

async function fitting(tool: Tool, args: unknown): Promise<Fitting | Failure> {
  const read = args === undefined ? "they are no JSON" : await tool.read(args);
  return typeof read === "string" ? failures.wrong(read) : read;
}

function messageOf({ callId, name }: Asked, result: Result, redact: (text: string) => string): ToolMessage {
  const about = { tool_call_id: callId, name };
  if ("text" in result)
    return new ToolMessage({ ...about, status: "success", content: redact(cut(result.text)) });
  return new ToolMessage({
    ...about,
    status: "error",
    content: redact(`${result.code}: ${result.sentence}`),
  });
}

/** As it can be kept: PostgreSQL takes no NUL. */
function cut(text: string): string {
  const kept = text.length > MAX_RESULT ? `${text.slice(0, MAX_RESULT)}\n[cut]` : text;
  return kept.replaceAll("\0", " ").toWellFormed();
}

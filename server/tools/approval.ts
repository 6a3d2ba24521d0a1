// Asks people before dangerous calls, by LangGraph's interrupts. A node runs again from its start with each answer, and
// answers are found by their order: so what is asked depends on the calls alone, never on who runs the node, and nothing
// is executed before the last question was answered. Whoever may not answer stops the run before his answer is kept.
import { interrupt } from "@langchain/langgraph";
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { ToolApprovalRefused } from "../errors.ts";
import { servicesOf } from "../services.ts";
import type { Tool } from "./define.ts";

/** A call that a person is asked about. */
export interface Question {
  readonly tool: Tool;
  readonly callId: string;
  readonly args: unknown;
}

export interface Answer {
  readonly isApproved: boolean;
  /** Arguments that the person put in the place of the model's. */
  readonly args: unknown;
}

/** What is known of the answers that a node got: LangGraph's own, which it gives each task. */
interface Scratchpad {
  /** Those of earlier runs, and the one that was given for this question by its id. */
  readonly resume: readonly unknown[];
  /** One that was given for whatever question is open. */
  readonly nullResume?: unknown;
}

/** The permissions of the caller; undefined when there is none. */
export function permissionsOf(config: LangGraphRunnableConfig): readonly string[] | undefined {
  const { langgraph_auth_permissions: given } = Object(config.configurable);
  return Array.isArray(given) ? given.map(String) : undefined;
}

/**
 * Asks the questions one after the other.
 * @param onAnswer told of the answer that this run brings, and of no other; undefined: it was not his to give
 * @returns the answers, in order
 * @throws GraphInterrupt while one is open; ToolApprovalRefused when the caller may not answer
 */
export async function ask(
  questions: readonly Question[],
  config: LangGraphRunnableConfig,
  onAnswer: (question: Question, answer: Answer | undefined) => Promise<void>,
): Promise<Answer[]> {
  if (questions.length === 0) return [];
  const brought = questions[placeOfAnswer(config)];
  // Before LangGraph is asked for the answer: what it has handed out, it keeps.
  if (brought && !mayAnswer(brought, config)) {
    await onAnswer(brought, undefined);
    throw new ToolApprovalRefused(brought.tool.name);
  }
  const answers: Answer[] = [];
  const tellBrought = async (): Promise<void> => {
    const answer = brought && answers[questions.indexOf(brought)];
    if (answer) await onAnswer(brought, answer);
  };
  try {
    for (const { tool, args, callId } of questions)
      answers.push(read(interrupt({ type: "tool_approval", tool: tool.name, args, id: callId }), callId));
  } catch (error) {
    await tellBrought();
    throw error;
  }
  await tellBrought();
  return answers;
}

function mayAnswer({ tool }: Question, config: LangGraphRunnableConfig): boolean {
  const { tools: server } = servicesOf(config);
  // Left on the thread by a run that came to no end: nobody knows any more who gave it.
  if (server && !server.bringsAnswer && padOf(config).nullResume !== undefined) return false;
  const permissions = permissionsOf(config);
  return (
    !permissions || tool.approvalPermission === undefined || permissions.includes(tool.approvalPermission)
  );
}

/** Which question the answer is for that this run finds; -1: it finds none. */
function placeOfAnswer(config: LangGraphRunnableConfig): number {
  const { resume, nullResume } = padOf(config);
  return nullResume === undefined ? resume.length - 1 : resume.length;
}

/** @throws TypeError for a LangGraph that keeps answers in another way: then nobody could say whose they are */
function padOf({ configurable }: LangGraphRunnableConfig): Scratchpad {
  const pad: unknown = Object(configurable)["__pregel_scratchpad"];
  const { resume, nullResume } = Object(pad) as Partial<Scratchpad>;
  if (!Array.isArray(resume))
    throw new TypeError("Tools with approval need the LangGraph that Holdfast names, in a node of a graph.");
  return { resume, nullResume };
}

/** Whatever is no clear yes is a no, and so is a yes to another call. */
function read(answer: unknown, callId: string): Answer {
  const { approved, args, id = callId } = Object(answer) as Record<string, unknown>;
  return { isApproved: answer === true || (approved === true && id === callId), args };
}

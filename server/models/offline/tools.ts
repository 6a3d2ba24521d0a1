// What the offline model does with tools: it calls one for a question, and answers from what the tool gave. Like an answer,
// a call is a function of the request alone.
import type { ChatRequest } from "./chat.ts";
import { answerFrom } from "./extract.ts";
import type { Turn } from "./extract.ts";
import { wordsOf } from "./scripts.ts";
import type { Script, ScriptedCall } from "./scripts.ts";

const MAX_QUERY = 2000;
const MAX_QUOTE = 600;
const FOLLOW_UP_WORDS = 4;
const SEARCH = "search_documents";
const FETCH = "fetch_page";
const TAKES_QUESTION = ["query", "question", "q", "text"];
const WEB_ADDRESS = /https?:\/\/[^\s<>"')\]]*[^\s<>"')\].,;:!?]/;

const WEB_ADDRESSES = new RegExp(WEB_ADDRESS, "g");

/** Undefined when no tool is to be called, or the model is one that misbehaves. */
export function toolScript(request: ChatRequest, turns: readonly Turn[]): Script | undefined {
  const last = turns.at(-1)?.role;
  if (request.model.startsWith("fake-")) return undefined;
  if (last === "tool") return { pieces: wordsOf(answerFromTools(turns)) };
  if (last !== "user" || request.tool_choice === "none") return undefined;
  const call = callFor(request, turns);
  return call && { calls: [call] };
}

function callFor({ tools }: ChatRequest, turns: readonly Turn[]): ScriptedCall | undefined {
  const question = questionOf(turns);
  const known = (tools ?? []).map(({ function: { name, parameters } }) => {
    return { name, fields: textsOf(parameters) };
  });
  const [url] = WEB_ADDRESS.exec(turns.at(-1)?.content ?? "") ?? [];
  const fetches = known.find(({ name, fields }) => name === FETCH && fields.includes("url"));
  if (fetches && url) return { name: FETCH, args: { url } };
  const usable = known.flatMap(({ name, fields }) => {
    const field = TAKES_QUESTION.find((one) => fields.includes(one));
    if (field) return [{ name, args: { [field]: question } }];
    return url && fields.includes("url") ? [{ name, args: { url } }] : [];
  });
  return usable.find(({ name }) => name === SEARCH) ?? usable[0];
}

/** Fields of a JSON schema that take text. */
function textsOf(parameters: unknown): string[] {
  const { properties } = Object(parameters) as { properties?: unknown };
  return Object.entries(Object(properties) as object)
    .filter(([, schema]) => Object(schema)["type"] === "string")
    .map(([name]) => name);
}

/** The last question, with the one before it when it is too short to stand alone. */
function questionOf(turns: readonly Turn[]): string {
  const asked = turns.filter(({ role }) => role === "user").map(({ content }) => content.trim());
  const last = asked.at(-1) ?? "";
  const isFollowUp = last.split(/\s+/).length <= FOLLOW_UP_WORDS;
  return (isFollowUp ? [asked.at(-2) ?? "", last] : [last]).join(" ").trim().slice(0, MAX_QUERY);
}

/** From the passages that tools gave for the last question; without any, their own words. */
function answerFromTools(turns: readonly Turn[]): string {
  const given = turns
    .slice(turns.findLastIndex(({ role }) => role === "user") + 1)
    .filter(({ role }) => role === "tool");
  const passages = given.filter(({ content }) => content.includes("<passage "));
  if (passages.length === 0) return given.map(({ content }) => content.slice(0, MAX_QUOTE)).join("\n");
  // The words of an address say nothing of what is asked about it.
  const asked = turns
    .filter(({ role }) => role === "user")
    .map(({ role, content }) => ({ role, content: content.replaceAll(WEB_ADDRESSES, " ") }));
  return answerFrom([...asked, ...passages.map(({ content }) => ({ role: "system", content }))]);
}

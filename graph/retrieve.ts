// Question to passages: the last human message, together with the one before it when it is too short to
// stand alone ("and how long?"). What it finds replaces the passages of the turn before.
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { servicesOf } from "../server/index.ts";
import type { Turn, Update } from "./state.ts";

const MAX_QUERY = 2000;
const MAX_BODY = 8000;
const FOLLOW_UP_WORDS = 4;

export async function retrieve(state: Turn, config: LangGraphRunnableConfig): Promise<Update> {
  const services = servicesOf(config);
  const query = queryOf(state);
  const { collection, passages: limit } = services.settings;
  const found = query ? await services.search(query, { collection, limit }) : [];
  const passages = found.map(({ chunk_id, source_id, title, ordinal, score, body }) => {
    return { chunk_id, source_id, title, ordinal, score, body: body.slice(0, MAX_BODY) };
  });
  return { passages, citations: [] };
}

function queryOf({ messages }: Turn): string {
  const asked = messages
    .filter(({ type }) => type === "human")
    .map(({ text }) => text.slice(0, MAX_QUERY).trim());
  const last = asked.at(-1) ?? "";
  const isFollowUp = last.split(/\s+/).length <= FOLLOW_UP_WORDS;
  return (isFollowUp ? [asked.at(-2) ?? "", last] : [last]).join(" ").trim();
}

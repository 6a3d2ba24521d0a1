// Makes the prompt fit its ceiling and reserves what it may cost, or stops the run before anything is sent. Whole passages and whole
// turns are left out: first the passages after the best two, then the oldest turns, then the last passages,
// so that a long conversation never starves the answer of its sources.
import type { LangGraphRunnableConfig } from "@langchain/langgraph";
import { BudgetExceeded, countChatTokens, encodingOf, servicesOf } from "../server/index.ts";
import { promptOf } from "./prompt.ts";
import type { Turn, Update } from "./state.ts";

const KEPT_PASSAGES = 2;

/** How much of the state a prompt takes: messages from `from` on, the best `passages`. */
interface Fit {
  readonly from: number;
  readonly passages: number;
}

export async function budgetCheck(state: Turn, config: LangGraphRunnableConfig): Promise<Update> {
  const { settings, reserve } = servicesOf(config);
  const { model, maxPromptTokens, maxOutputTokens } = settings;
  const { messages, passages } = state;
  const count = async ({ from, passages: kept }: Fit): Promise<number> =>
    countChatTokens(promptOf(messages.slice(from), passages.slice(0, kept)), model);
  const { fit, tokens } = await fullest(fitsOf(state), count, maxPromptTokens);
  if (tokens > maxPromptTokens) {
    throw new BudgetExceeded(
      `The prompt needs ${tokens} tokens without any passage or earlier turn, and HOLDFAST_MAX_PROMPT_TOKENS ` +
        `allows ${maxPromptTokens}. Nothing was sent. Shorten the message or raise the setting.`,
    );
  }
  await reserve?.({ model, promptTokens: tokens, maxOutputTokens });
  return {
    passages: passages.slice(0, fit.passages),
    budget: {
      model,
      prompt_tokens: tokens,
      max_prompt_tokens: maxPromptTokens,
      max_output_tokens: maxOutputTokens,
      dropped_messages: fit.from,
      dropped_passages: passages.length - fit.passages,
      approximate: encodingOf(model).approximate,
    },
  };
}

/** Every way to fit, fullest first; the last is the newest message alone. */
function fitsOf({ messages, passages }: Turn): Fit[] {
  const turns = messages.flatMap(({ type }, index) => (type === "human" ? [index] : []));
  const kept = Math.min(KEPT_PASSAGES, passages.length);
  const newest = turns.at(-1) ?? 0;
  return [
    ...downTo(passages.length, kept).map((count) => ({ from: 0, passages: count })),
    ...turns.filter((from) => from > 0).map((from) => ({ from, passages: kept })),
    ...downTo(kept, 0).map((count) => ({ from: newest, passages: count })),
  ];
}

const downTo = (from: number, to: number): number[] =>
  Array.from({ length: from - to + 1 }, (_, index) => from - index);

/** The first fit within the ceiling by binary search (each is smaller than the one before), else the last. */
async function fullest(
  fits: readonly Fit[],
  count: (fit: Fit) => Promise<number>,
  ceiling: number,
): Promise<{ fit: Fit; tokens: number }> {
  const at = (index: number): Fit => fits[index] ?? { from: 0, passages: 0 };
  let [low, high] = [0, Math.max(fits.length - 1, 0)];
  for (const end of [low, high]) {
    const tokens = await count(at(end));
    // All of it fits, or not even the least does: no search is needed.
    if (tokens <= ceiling === (end === low)) return { fit: at(end), tokens };
  }
  while (low < high) {
    const middle = (low + high) >> 1;
    if ((await count(at(middle))) <= ceiling) high = middle;
    else low = middle + 1;
  }
  return { fit: at(low), tokens: await count(at(low)) };
}

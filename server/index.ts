// The public door: what a graph may import from Holdfast. Importing it starts nothing, so a graph that
// does still loads in LangGraph's own dev server and in Studio.
export { streamAnswer } from "./models/answer.ts";
export { countChatTokens, countTokens, encodingOf } from "./models/tokens.ts";
export { redactText } from "./privacy/redact.ts";
export { BudgetExceeded, ModelFailed } from "./errors.ts";
export { graphSettings, servicesOf } from "./services.ts";
export type { ChatText } from "./models/tokens.ts";
export type { GraphSettings, Passage, SearchOptions, Services } from "./services.ts";

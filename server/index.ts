// The public door: what a graph may import from Holdfast. Importing it starts nothing, so a graph that
// does still loads in LangGraph's own dev server and in Studio.
export { streamAnswer } from "./models/answer.ts";
export { countChatTokens, countTokens, encodingOf } from "./models/tokens.ts";
export { redactText } from "./privacy/redact.ts";
export { BudgetExceeded, ModelFailed, ToolApprovalRefused } from "./errors.ts";
export { passageText } from "./retrieval/passage-text.ts";
export { defineTool, toolSpecs } from "./tools/define.ts";
export { ToolError } from "./tools/failure.ts";
export { runTools } from "./tools/run.ts";
export { toolStats } from "./tools/tally.ts";
export { graphSettings, servicesOf } from "./services.ts";
export type { Tool, ToolContext, ToolDefinition, ToolSpec } from "./tools/define.ts";
export type { ToolStats } from "./tools/tally.ts";
export type { ChatText } from "./models/tokens.ts";
export type { GraphSettings, Passage, SearchOptions, Services } from "./services.ts";

// The operations of budgets.
import { Budget, Budgets, UsageLines } from "./answers.ts";
import { budgetChange, budgetCreate, budgetQuery, usageQuery } from "../budget-schemas.ts";
import { json, nothing } from "./describe.ts";
import type { Noun } from "./describe.ts";

export const budgets: Noun = {
  tag: "Budgets",
  about: "Limits of what calls to models may cost, and what they did cost.",
  operations: {
    "GET /budgets": {
      id: "searchBudgets",
      summary: "List budgets",
      about: "Each with its periods that run: what was spent in them, is reserved and is free.",
      query: budgetQuery,
      answers: json(Budgets, "A page of budgets."),
    },
    "POST /budgets": {
      id: "createBudget",
      summary: "Create a budget",
      about:
        "Every budget that a call falls under must have room for it. `scope_id` of a user is the identity that auth knows; left out, each user, assistant or thread has the limit for itself. `max` is in tokens or in US dollars.",
      body: budgetCreate,
      answers: json(Budget, "The budget."),
      errors: { 404: ["assistant_not_found"], 409: ["budget_exists"] },
    },
    "GET /budgets/usage": {
      id: "searchUsage",
      summary: "What was used",
      about: "Calls, tokens and dollars by day (UTC), model, node, thread, assistant or user.",
      query: usageQuery,
      answers: json(UsageLines, "A line for each group."),
    },
    "GET /budgets/:budget": {
      id: "getBudget",
      summary: "Get a budget",
      about: "With its newest 1,000 periods.",
      answers: json(Budget, "The budget."),
      errors: { 404: ["budget_not_found"] },
    },
    "PATCH /budgets/:budget": {
      id: "updateBudget",
      summary: "Change the limit of a budget",
      about: "Periods that run have the limit from their next call on. A lower one takes nothing back.",
      body: budgetChange,
      answers: json(Budget, "The budget."),
      errors: { 404: ["budget_not_found"] },
    },
    "DELETE /budgets/:budget": {
      id: "deleteBudget",
      summary: "Delete a budget",
      about: "It limits nothing any more. What it counted stays in the ledger.",
      answers: nothing,
      errors: { 404: ["budget_not_found"] },
    },
  },
};

// The operations of crons.
import { z } from "zod";
import { Count, Cron, FoundCron } from "./answers.ts";
import { cronChange, cronCreate, cronFilter, cronSearch } from "../crons.ts";
import { PAGED, json, nothing } from "./describe.ts";
import type { Noun } from "./describe.ts";

const refused = { 422: ["cron_invalid", "webhook_refused", "pii_in_identifier"] };
const missing = { 404: ["cron_not_found"] };

export const crons: Noun = {
  tag: "Crons",
  about: "Schedules that start runs.",
  operations: {
    "POST /runs/crons": {
      id: "createCron",
      summary: "Create a cron whose runs have a thread each",
      body: cronCreate,
      answers: json(Cron, "The cron."),
      errors: { ...refused, 404: ["assistant_not_found", "graph_not_found"] },
    },
    "POST /threads/:thread/runs/crons": {
      id: "createThreadCron",
      summary: "Create a cron on a thread",
      body: cronCreate,
      answers: json(Cron, "The cron."),
      errors: { ...refused, 404: ["assistant_not_found", "graph_not_found", "thread_not_found"] },
    },
    "POST /runs/crons/search": {
      id: "searchCrons",
      summary: "Search crons",
      body: cronSearch,
      answers: json(z.array(FoundCron), "A page of crons, or of the fields in `select`.", PAGED),
    },
    "POST /runs/crons/count": {
      id: "countCrons",
      summary: "Count crons",
      body: cronFilter,
      answers: json(Count, "How many a search finds."),
    },
    "PATCH /runs/crons/:cron": {
      id: "changeCron",
      summary: "Change a cron",
      body: cronChange,
      answers: json(Cron, "The cron."),
      errors: { ...refused, ...missing },
    },
    "DELETE /runs/crons/:cron": {
      id: "deleteCron",
      summary: "Delete a cron",
      answers: nothing,
      errors: missing,
    },
  },
};

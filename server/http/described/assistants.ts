// The operations of assistants.
import { z } from "zod";
import {
  Assistant,
  AssistantVersion,
  Count,
  Drawing,
  FoundAssistant,
  GraphSchemas,
  Subgraphs,
} from "./answers.ts";
import {
  assistantChange,
  assistantCreate,
  assistantFilter,
  assistantSearch,
  deleteQuery,
  graphQuery,
  latestBody,
  subgraphQuery,
  versionList,
} from "../assistant-schemas.ts";
import { PAGED, json } from "./describe.ts";
import type { Described, Noun } from "./describe.ts";

const ONE = "/assistants/:assistant";
const missing = { 404: ["assistant_not_found"] };
const unserved = { 404: ["assistant_not_found", "graph_not_found"] };
const subgraphs: Omit<Described, "id" | "summary"> = {
  query: subgraphQuery,
  answers: json(Subgraphs, "The schemas, by namespace; empty if there is none."),
  errors: unserved,
};

export const assistants: Noun = {
  tag: "Assistants",
  about: "A graph with a name, an id and a configuration. Each graph has one that the server made.",
  operations: {
    "POST /assistants": {
      id: "createAssistant",
      summary: "Create an assistant",
      body: assistantCreate,
      answers: json(Assistant, "The assistant, in version 1."),
      errors: { 404: ["graph_not_found"], 409: ["assistant_exists"] },
    },
    "POST /assistants/search": {
      id: "searchAssistants",
      summary: "Search assistants",
      body: assistantSearch,
      answers: json(z.array(FoundAssistant), "A page of assistants, or of the fields in `select`.", PAGED),
    },
    "POST /assistants/count": {
      id: "countAssistants",
      summary: "Count assistants",
      body: assistantFilter,
      answers: json(Count, "How many a search finds."),
    },
    [`GET ${ONE}`]: {
      id: "getAssistant",
      summary: "Get an assistant",
      answers: json(Assistant, "The assistant."),
      errors: missing,
    },
    [`PATCH ${ONE}`]: {
      id: "changeAssistant",
      summary: "Change an assistant",
      about: "Makes a new version. Metadata are merged, everything else is replaced.",
      body: assistantChange,
      answers: json(Assistant, "The assistant, in its new version."),
      errors: { ...unserved, 409: ["assistant_fixed"] },
    },
    [`DELETE ${ONE}`]: {
      id: "deleteAssistant",
      summary: "Delete an assistant",
      query: deleteQuery,
      answers: json(z.array(z.string()).length(1), "The id of the assistant that was deleted."),
      errors: { ...missing, 409: ["assistant_fixed", "thread_busy"] },
    },
    [`POST ${ONE}/versions`]: {
      id: "listAssistantVersions",
      summary: "List the versions of an assistant",
      body: versionList,
      answers: json(z.array(AssistantVersion), "Versions, newest first."),
      errors: missing,
    },
    [`POST ${ONE}/latest`]: {
      id: "setLatestAssistantVersion",
      summary: "Bring back a version of an assistant",
      body: latestBody,
      answers: json(Assistant, "The assistant as it is now."),
      errors: missing,
    },
    [`GET ${ONE}/graph`]: {
      id: "drawAssistantGraph",
      summary: "Draw the graph of an assistant",
      about: "`xray` opens subgraphs: all of them, or so many levels.",
      query: graphQuery,
      answers: json(Drawing, "Nodes and edges."),
      errors: unserved,
    },
    [`GET ${ONE}/schemas`]: {
      id: "getAssistantSchemas",
      summary: "Get the JSON schemas of an assistant's graph",
      answers: json(GraphSchemas, "Schemas of input, output, state, configuration and context."),
      errors: unserved,
    },
    [`GET ${ONE}/subgraphs`]: {
      id: "getAssistantSubgraphs",
      summary: "Get the schemas of an assistant's subgraphs",
      ...subgraphs,
    },
    [`GET ${ONE}/subgraphs/:namespace`]: {
      id: "getAssistantSubgraph",
      summary: "Get the schemas of one subgraph",
      ...subgraphs,
    },
  },
};

// The tools of the agent: the indexed documents, and pages of the public internet, which a person allows one by one,
// because an address can carry away what a conversation holds.
import { z } from "zod";
import { defineTool, passageText } from "../server/index.ts";

const NOTHING = "No document says anything about this. Try other words once, or say that you do not know.";
const MAX_BODY = 8000;

const searchDocuments = defineTool({
  name: "search_documents",
  description:
    "Searches the indexed documents and returns their best passages. Use it before you answer a question.",
  schema: z.object({
    query: z.string().min(1).max(2000).describe("What to look for, in the words of the question."),
  }),
  run: async ({ query }, { search }) => {
    const found = await search(query);
    const passages = found.map(({ source_id: source, title, body }, index) =>
      passageText({ source, title, body: body.slice(0, MAX_BODY) }, index + 1),
    );
    return passages.join("\n") || NOTHING;
  },
});

const fetchPage = defineTool({
  name: "fetch_page",
  description: "Fetches one page of the public internet and returns its text. A person is asked first.",
  schema: z.object({ url: z.string().max(2000).describe("The whole address, with https://.") }),
  timeoutMs: 30_000,
  perMinute: 60,
  approval: true,
  run: ({ url }, context) => context.fetchPage(url),
});

export const tools = [searchDocuments, fetchPage];

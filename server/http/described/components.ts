// The operations that bring the components of graphs into web pages. A server has them when its langgraph.json names some.
import { z } from "zod";
import { componentAsked } from "../schemas.ts";
import type { Described, Noun } from "./describe.ts";

const text = (type: string, about: string): Described["answers"][number] => ({
  about,
  type,
  schema: z.string(),
});

export const components: Noun = {
  tag: "Components",
  about: "What graphs bring along for web pages to draw.",
  operations: {
    "POST /ui/:key": {
      id: "getComponent",
      summary: "Get the HTML that draws a component",
      about: "The key is that of the components in langgraph.json, or the id of an assistant of that graph.",
      body: componentAsked,
      answers: { 200: text("text/html", "The HTML."), 404: text("text/plain", "There are none.") },
    },
    "GET /ui/:key/:file": {
      id: "getComponentFile",
      summary: "Get a file of components",
      answers: {
        200: text("text/javascript", "The file."),
        304: { about: "It is the one of the ETag." },
        404: text("text/plain", "There is none."),
      },
      isBare: true,
    },
  },
};

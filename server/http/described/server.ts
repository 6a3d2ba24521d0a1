// The operations that say what this server is and how it is.
import { z } from "zod";
import { Info, NotReady, Ready, Up } from "./answers.ts";
import { json } from "./describe.ts";
import type { Noun } from "./describe.ts";

const up = json(Up, "It does.");

export const server: Noun = {
  tag: "Server",
  about: "What this server is, and how it is.",
  operations: {
    "GET /ok": { id: "ok", summary: "Whether the server answers", answers: up, isBare: true },
    "GET /live": {
      id: "live",
      summary: "Whether the process lives: for restarts",
      answers: up,
      isBare: true,
    },
    "GET /ready": {
      id: "ready",
      summary: "Whether the server takes requests: for balancers",
      isBare: true,
      answers: {
        ...json(Ready, "It does."),
        503: { about: "It does not: why.", type: "application/json", schema: NotReady },
      },
    },
    "GET /info": {
      id: "info",
      summary: "Version and features",
      answers: json(Info, "What is built."),
      isBare: true,
    },
    "GET /openapi.json": {
      id: "openapi",
      summary: "This document",
      answers: json(z.looseObject({ openapi: z.literal("3.1.1") }), "OpenAPI 3.1."),
      isBare: true,
    },
    "GET /docs": {
      id: "docs",
      summary: "This document as a page",
      answers: { 200: { about: "The page.", type: "text/html", schema: z.string() } },
      isBare: true,
    },
    "GET /docs/scalar.js": {
      id: "docsScript",
      summary: "The script of that page",
      answers: { 200: { about: "The script.", type: "text/javascript", schema: z.string() } },
      isBare: true,
    },
  },
};

// The gateway of a server, with all it needs.
import type { Config } from "../../config.ts";
import type { Caches } from "../../storage/caches/caches.ts";
import type { CallNotes } from "../../storage/call-notes.ts";
import type { Database } from "../../storage/database.ts";
import { defaultScope } from "../../storage/scope.ts";
import type { Log } from "../../telemetry/log.ts";
import { ResponseCache } from "../caching/responses.ts";
import { openCatalogue } from "../catalogue.ts";
import { Resilience } from "../resilience/resilience.ts";
import type { ResilienceEvent } from "../resilience/resilience.ts";
import { Gateway } from "./gateway.ts";
import { Spending } from "./spending.ts";

export interface GatewayParts {
  readonly database: Database;
  readonly caches: Caches;
  readonly log: Log;
  readonly notes: CallNotes;
  /** A model failed so often that it is not asked for so long. */
  readonly onOpen: (model: string, ms: number) => void;
}

/** What an operator should know of; a single retry is nothing to worry about. */
function tell(log: Log, event: ResilienceEvent): void {
  const { type, ...facts } = event;
  if (type === "breaker") log.warn("model.breaker", facts);
  if (type === "busy") log.warn("model.busy", facts);
  if (type === "fallback") log.info("model.fallback", facts);
  if (type === "retry") log.debug("model.retried", facts);
}

/** @throws ConfigInvalid when the file of models is wrong */
export function openGateway(
  config: Pick<
    Config,
    "modelsFile" | "modelTimeoutMs" | "maxOutputTokens" | "cacheResponses" | "cacheTtlSeconds"
  >,
  { database, caches, log, notes, onOpen }: GatewayParts,
): Gateway {
  const catalogue = openCatalogue(config);
  return new Gateway({
    catalogue,
    spending: new Spending({ database, scope: defaultScope, log, notes }),
    resilience: new Resilience({
      policyOf: (model) => catalogue.of(model).policy,
      onOpen,
      onEvent: (event) => tell(log, event),
    }),
    responses: new ResponseCache(caches, {
      rule: config.cacheResponses,
      ttlMs: config.cacheTtlSeconds * 1000,
    }),
    maxOutputTokens: config.maxOutputTokens,
    log,
  });
}

// The gateway of a server, with all it needs.
import type { Config } from "../../config.ts";
import type { Database } from "../../storage/database.ts";
import { defaultScope } from "../../storage/scope.ts";
import type { Log } from "../../telemetry/log.ts";
import { openCatalogue } from "../catalogue.ts";
import { Resilience } from "../resilience/resilience.ts";
import { Gateway } from "./gateway.ts";
import { Spending } from "./spending.ts";

export interface GatewayParts {
  readonly database: Database;
  readonly log: Log;
  /** A model failed so often that it is not asked for so long. */
  readonly onOpen: (model: string, ms: number) => void;
}

/** @throws ConfigInvalid when the file of models is wrong */
export function openGateway(
  config: Pick<Config, "modelsFile" | "modelTimeoutMs" | "maxOutputTokens">,
  { database, log, onOpen }: GatewayParts,
): Gateway {
  const catalogue = openCatalogue(config);
  return new Gateway({
    catalogue,
    spending: new Spending({ database, scope: defaultScope, log }),
    resilience: new Resilience({ policyOf: (model) => catalogue.of(model).policy, onOpen }),
    maxOutputTokens: config.maxOutputTokens,
    log,
  });
}

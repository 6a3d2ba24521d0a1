// On whose behalf the code of a run calls models: who pays, and what has been reserved for it.
import { onBehalfOf } from "../models/gateway/context.ts";
import type { CallContext } from "../models/gateway/context.ts";
import { persistently } from "../persist.ts";
import type { Services } from "../services.ts";
import type { Owner } from "../storage/fence.ts";
import { pseudonymOf } from "../storage/keys/pseudonyms.ts";
import type { Payer } from "../storage/model-calls.ts";
import type { Engine } from "./engine.ts";
import type { Recording } from "./log/record.ts";
import type { AcceptedRun } from "./request.ts";

interface Charged {
  readonly engine: Engine;
  readonly run: AcceptedRun;
  readonly owner: Owner;
  readonly recording: Recording;
  readonly controller: AbortController;
}

/** Does `work` for an attempt of a run; calls to models that it makes are charged to the run. */
export async function chargedTo(
  { engine, run, owner, recording, controller }: Charged,
  work: (context: CallContext) => Promise<void>,
): Promise<void> {
  const { gateway } = engine;
  let payer: Promise<Payer> | undefined;
  const context: CallContext = {
    payer: () => {
      // What failed is asked again by the next call.
      payer ??= payerOf(engine, run, owner).catch((error: unknown) => {
        payer = undefined;
        throw error;
      });
      return payer;
    },
    call: (request, of) => gateway.call(request, of),
    fail: (error) => controller.abort(error),
    graphId: run.graph_id,
    guard: engine.privacy.of(run.graph_id),
    caches: engine.caches,
    nodeHits: 0,
    ahead: [],
    // Whether the run is lost is for who drives it to see.
    shown: () => recording.flushed().catch(() => undefined),
    pending: 0,
    leaving: new Set(),
    refusal: undefined,
  };
  try {
    await onBehalfOf(context, () => work(context));
  } finally {
    await gateway.close(context);
  }
}

async function payerOf({ database }: Engine, run: AcceptedRun, owner: Owner): Promise<Payer> {
  const identity = run.auth?.user.identity;
  const userId =
    identity === undefined ? undefined : await persistently(() => pseudonymOf(database, identity));
  return { owner, assistantId: run.assistant_id, userId };
}

/** What a graph may ask of the gateway. */
export const servicesFor = ({ gateway }: Engine, context: CallContext): Pick<Services, "reserve"> => ({
  reserve: (call) => gateway.reserve(call, context),
});

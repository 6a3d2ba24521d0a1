// What calls to models may cost and did cost. A call that falls under a budget is reserved at its worst case before it is
// sent, and settled with what the provider billed before its reader knows of the end. Settling needs no lease: what was
// spent was spent, whoever owns the run by then.
import { uptime } from "../../clock.ts";
import { AppError, BudgetExceeded, LeaseLost, ModelFailed } from "../../errors.ts";
import { faultPoint } from "../../faults.ts";
import { uuidv7 } from "../../ids.ts";
import { persistently } from "../../persist.ts";
import type { CallNotes } from "../../storage/call-notes.ts";
import type { Database } from "../../storage/database.ts";
import { hasBudget } from "../../storage/budgets.ts";
import { presumeCall, releaseCall, reserveCall, sendCall, settleCall } from "../../storage/model-calls.ts";
import type { Payer, Reservation, Usage, WorstCase } from "../../storage/model-calls.ts";
import type { Scope } from "../../storage/scope.ts";
import type { Log } from "../../telemetry/log.ts";
import { costOf } from "../catalogue.ts";
import type { ModelFacts } from "../catalogue.ts";
import { countTokens } from "../tokens.ts";
import { billIn, isFinished, isReadable, isStream, spokenIn } from "./answer-bytes.ts";
import type { Billed } from "./answer-bytes.ts";
import { shortageOf } from "./shortage.ts";

export interface SpendingOptions {
  readonly database: Database;
  readonly scope: Scope;
  readonly log: Log;
  /** Keeps what is noted of calls that fall under no budget. */
  readonly notes: Pick<CallNotes, "add">;
}

/** What is to be sent, as far as it costs something. */
export interface Plan {
  readonly payer: Payer;
  readonly facts: ModelFacts;
  readonly node: string | undefined;
  /** Tokens of the prompt, counted when it is first asked for. */
  readonly promptTokens: () => Promise<number>;
  /** The most tokens that may come back, of all answers together. */
  readonly outputTokens: number;
  /** So many answers; 1 if left out. */
  readonly choices?: number | undefined;
}

/** A reservation that waits for its call. */
export interface Ahead {
  readonly callId: string;
  /** Where it was made. */
  readonly node: string | undefined;
  readonly model: string;
  readonly worst: WorstCase;
}

/** One call to a provider, from before it is sent. */
export interface Charge {
  readonly callId: string;
  /** It falls under a budget: it must not cost more than it was reserved with. */
  readonly isReserved: boolean;
  /** It cost nothing: the provider refused, or was never reached. */
  release(): Promise<void>;
  /**
   * Reads the bill in what came back. Without one a whole answer is counted; of one that broke off, that cannot be read or
   * that was too long to be kept nobody knows what the provider bills, so it is charged at its worst case. Never rejects.
   * @param isTail only the last of the answer was kept
   */
  settle(bytes: Uint8Array, isWhole: boolean, isTail: boolean): Promise<void>;
}

interface Reserving {
  readonly callId: string;
  readonly worst: WorstCase;
  readonly state: "held" | "sent";
}

// A budget that was just made holds everywhere after this time.
const LOOK_MS = 1000;
// Beyond the longest time that a call may take, so that nobody's call is taken for lost while it is under way.
const GRACE_MS = 60_000;
const SETTLE_MS = 10_000;
/** What is noted of a call of which nothing is known. */
const NOTHING: Usage = { input: 0, cached: 0, output: 0, microUsd: null, isEstimated: true };

export class Spending {
  readonly #options: SpendingOptions;
  #looked: { readonly at: number; readonly isLimited: Promise<boolean> } | undefined;

  constructor(options: SpendingOptions) {
    this.#options = options;
  }

  /** Budgets were changed here. */
  lookAgain(): void {
    this.#looked = undefined;
  }

  /** Whether there is any budget: without one a call is only noted when it is over. */
  isLimited(): Promise<boolean> {
    const { database, scope } = this.#options;
    const at = uptime();
    if (this.#looked && at < this.#looked.at + LOOK_MS) return this.#looked.isLimited;
    const isLimited = persistently(() => hasBudget(database, scope));
    this.#looked = { at, isLimited };
    isLimited.catch(() => {
      this.#looked = undefined;
    });
    return isLimited;
  }

  /**
   * Reserves for a call that comes later; undefined where nothing is limited.
   * @throws BudgetExceeded, LeaseLost
   */
  async ahead(plan: Plan): Promise<Ahead | undefined> {
    if (!(await this.isLimited())) return undefined;
    const worst = await worstOf(plan);
    const callId = uuidv7();
    await this.#reserve(plan, { callId, worst, state: "held" });
    return { callId, node: plan.node, model: plan.facts.name, worst };
  }

  /** Gives back what no call came for. */
  async forget({ callId }: Pick<Ahead, "callId">): Promise<void> {
    const { database, log } = this.#options;
    await releaseCall(database, callId).catch(() => log.warn("call.unreleased", { call_id: callId }));
  }

  /**
   * Says that a call is about to be sent. When this returns, it may be.
   * @param waiting reservations of the attempt that no call came for; the one that fits is used and taken out
   * @throws BudgetExceeded when it may not; LeaseLost when the run is somebody else's
   */
  async begin(plan: Plan, waiting: Ahead[]): Promise<Charge> {
    if (!(await this.isLimited())) return this.#charge(plan, uuidv7(), undefined);
    const worst = await worstOf(plan);
    const { node, facts } = plan;
    const fitting = waiting
      .filter((one) => one.model === facts.name && covers(one.worst, worst))
      .toSorted((a, b) => Number(b.node === node) - Number(a.node === node))[0];
    if (fitting) {
      waiting.splice(waiting.indexOf(fitting), 1);
      if (await this.#send(fitting, plan)) return this.#charge(plan, fitting.callId, fitting.worst);
    }
    // What this node reserved for this model was meant for this call, and is too little.
    await this.#giveUp(waiting, (one) => one.model === facts.name && one.node === node);
    const callId = uuidv7();
    await this.#reserve(plan, { callId, worst, state: "sent" }, () =>
      // Reserved in another node, or before a route led elsewhere, it may be meant for this call: it yields, but only
      // where there is too little, because it may as well be meant for one that is made at the same time.
      this.#giveUp(waiting, (one) => one.model === facts.name || one.node === node),
    );
    return this.#charge(plan, callId, worst);
  }

  /** Gives back those that wait; false: there are none. */
  async #giveUp(waiting: Ahead[], isMeant: (one: Ahead) => boolean): Promise<boolean> {
    const given = waiting.filter(isMeant);
    for (const one of given) waiting.splice(waiting.indexOf(one), 1);
    await Promise.all(given.map((one) => this.forget(one)));
    return given.length > 0;
  }

  /** False: its time is over, or the answer was lost; then it is given back. */
  async #send(ahead: Ahead, { payer, node }: Plan): Promise<boolean> {
    const { database } = this.#options;
    const { workerId } = payer.owner;
    try {
      return await persistently(() => sendCall(database, ahead.callId, { node, workerId }));
    } catch (error) {
      await this.forget(ahead);
      throw error;
    }
  }

  /** @param makeRoom gives back what it can; whether that is anything */
  async #reserve(
    plan: Plan,
    one: Reserving,
    makeRoom: () => Promise<boolean> = async () => false,
  ): Promise<void> {
    const { log } = this.#options;
    const { payer, facts } = plan;
    let reserved = await this.#tryReserve(plan, one);
    if (reserved.outcome === "short" && (await makeRoom())) reserved = await this.#tryReserve(plan, one);
    if (reserved.outcome === "reserved") return;
    if (reserved.outcome === "lost")
      throw new LeaseLost(`Run ${payer.owner.runId} is not ours any more: it calls no model.`);
    const { budget_id, unit, free, asked } = reserved;
    log.info("budget.refused", { run_id: payer.owner.runId, budget_id, unit, free, asked });
    const { message, details } = shortageOf(reserved, facts.name);
    throw new BudgetExceeded(message, { details });
  }

  async #tryReserve({ payer, facts, node }: Plan, { callId, worst, state }: Reserving): Promise<Reservation> {
    const { database, scope } = this.#options;
    const ttlMs = facts.policy.total_ms + GRACE_MS;
    const call = { callId, payer, model: facts.name, node, state, ttlMs, worst };
    try {
      return await persistently(() => reserveCall(database, scope, call));
    } catch (error) {
      // It may have been reserved although the answer was lost.
      await this.forget(call);
      if (error instanceof AppError) throw error;
      throw new ModelFailed("The call could not be counted, so it was not sent. Try again.", {
        retryable: true,
        cause: error,
      });
    }
  }

  #charge(plan: Plan, callId: string, worst: WorstCase | undefined): Charge {
    const { database, scope, log, notes } = this.#options;
    const { payer, facts, node } = plan;
    const quietly = async (work: () => Promise<unknown>): Promise<void> => {
      try {
        await persistently(work, { forMs: SETTLE_MS });
      } catch {
        // It stays open until its time is over, and is then presumed at its worst case.
        log.warn("call.unsettled", { call_id: callId, run_id: payer.owner.runId });
      }
    };
    return {
      callId,
      isReserved: worst !== undefined,
      release: () => (worst ? quietly(() => releaseCall(database, callId)) : Promise.resolve()),
      settle: async (bytes, isWhole, isTail) => {
        const bill = billIn(bytes);
        const isOver = isFinished(bytes, plan.choices) || (isWhole && !isStream(bytes));
        const isKnown = isOver && (bill !== undefined || (isWhole && !isTail && isReadable(bytes)));
        const used = await usageOf(plan, bytes, bill).catch(() => undefined);
        if (worst && used && isKnown && used.input + used.output > worst.tokens)
          log.warn("budget.overbilled", { call_id: callId, model: facts.name, reserved: worst.tokens });
        if (worst)
          await quietly(() =>
            used && isKnown ? settleCall(database, callId, used) : presumeCall(database, callId),
          );
        else notes.add({ scope, call: { callId, payer, model: facts.name, node }, usage: used ?? NOTHING });
        faultPoint("call.settled");
      },
    };
  }
}

async function worstOf({ facts, promptTokens, outputTokens }: Plan): Promise<WorstCase> {
  const input = await promptTokens();
  const tokens = input + outputTokens;
  const { price } = facts;
  const microUsd =
    price && isCountable(tokens) ? costOf(price, { input, cached: 0, output: outputTokens }) : null;
  if (!isCountable(tokens) || (microUsd !== null && !isCountable(microUsd)))
    throw new BudgetExceeded(
      "This call asks for more tokens than can be counted, and a budget applies. Nothing was sent. Lower its ceiling.",
    );
  return { tokens, microUsd };
}

const isCountable = (amount: number): boolean => Number.isSafeInteger(amount) && amount >= 0;

const covers = (reserved: WorstCase, needed: WorstCase): boolean =>
  reserved.tokens >= needed.tokens && (reserved.microUsd ?? 0) >= (needed.microUsd ?? 0);

async function countAll(texts: readonly string[], model: string): Promise<number> {
  const counts = await Promise.all(texts.map((text) => countTokens(text, model)));
  return counts.reduce((sum, count) => sum + count, 0);
}

async function usageOf(
  { facts, promptTokens }: Plan,
  bytes: Uint8Array,
  billed: Billed | undefined,
): Promise<Usage> {
  const used = billed ?? {
    input: await promptTokens(),
    cached: 0,
    output: await countAll(spokenIn(bytes), facts.name),
  };
  return {
    ...used,
    microUsd: facts.price ? costOf(facts.price, used) : null,
    isEstimated: billed === undefined,
  };
}

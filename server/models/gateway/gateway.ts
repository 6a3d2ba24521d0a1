// Makes the model calls of runs: routes, reserves, sends, retries and settles. Clients of providers see a provider that
// answers or refuses; why something was refused here is kept beside the run, in our own words.
import { AppError, BudgetExceeded, InputInvalid } from "../../errors.ts";
import { faultPoint } from "../../faults.ts";
import type { ComingCall } from "../../services.ts";
import type { Log } from "../../telemetry/log.ts";
import { factsOf } from "../answer.ts";
import { takeWish } from "../caching/cacheable.ts";
import type { ResponseCache } from "../caching/responses.ts";
import type { Catalogue } from "../catalogue.ts";
import type { Resilience, Sent } from "../resilience/resilience.ts";
import { heard } from "./answer-bytes.ts";
import { withoutBill } from "./bill-frames.ts";
import { asksForBill, ceilingOf, preparedBody, promptTokensOf, readChat } from "./chat-call.ts";
import type { ChatBody } from "./chat-call.ts";
import { currentNode, noteLeaving } from "./context.ts";
import type { CallContext, CallRequest } from "./context.ts";
import { isChatCompletions, plainFetch } from "./intercept.ts";
import { asClientsTake, refusalOf } from "./refusals.ts";
import type { Charge, Spending } from "./spending.ts";

export interface GatewayOptions {
  readonly catalogue: Catalogue;
  readonly spending: Spending;
  readonly resilience: Resilience;
  readonly responses: ResponseCache;
  /** Ceiling of an answer for which nobody gave one, where a budget applies. */
  readonly maxOutputTokens: number;
  readonly log: Log;
}

/** Failures of a connection that was never made: nothing can have been billed. */
const NEVER_SENT =
  /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|EHOSTUNREACH|ENETUNREACH|UND_ERR_CONNECT_TIMEOUT|ERR_INVALID_URL|ERR_TLS_\w+|CERT_\w+|DEPTH_ZERO_\w+|SELF_SIGNED_\w+|UNABLE_TO_\w+)$/;
const MAY_GO_ON = new Set([408, 499, 502, 504, 520, 521, 522, 523, 524]);

export class Gateway {
  readonly #options: GatewayOptions;

  constructor(options: GatewayOptions) {
    this.#options = options;
  }

  /** Reserves what the call costs at most. @throws BudgetExceeded, LeaseLost, InputInvalid */
  async reserve(coming: ComingCall, context: CallContext): Promise<void> {
    const { catalogue, spending } = this.#options;
    const { promptTokens, maxOutputTokens, hasTools = false } = coming;
    if (![promptTokens, maxOutputTokens].every((count) => Number.isSafeInteger(count) && count >= 0))
      throw new InputInvalid("reserve() takes whole numbers of tokens, 0 or more.");
    const facts = catalogue.of(catalogue.route(coming.model, { promptTokens, hasTools }));
    const node = currentNode();
    const old = context.ahead.find((one) => one.model === facts.name && one.node === node);
    if (old) context.ahead.splice(context.ahead.indexOf(old), 1);
    if (old) await spending.forget(old);
    await Promise.all(context.leaving);
    const ahead = await spending.ahead({
      payer: await context.payer(),
      facts,
      node,
      promptTokens: async () => promptTokens,
      outputTokens: maxOutputTokens,
    });
    if (ahead) context.ahead.push(ahead);
  }

  /** Budgets were changed here: others know of it within a second. */
  budgetsChanged(): void {
    this.#options.spending.lookAgain();
  }

  /** Another instance found that a model fails. */
  isolate(model: string, ms: number): void {
    this.#options.resilience.isolate(model, ms);
  }

  /** The attempt is over: gives back what was reserved and not used. */
  async close(context: CallContext): Promise<void> {
    const { spending } = this.#options;
    await Promise.all(context.leaving);
    await Promise.all(context.ahead.splice(0).map((one) => spending.forget(one)));
  }

  /** Makes one call, as its client would have made it. */
  async call(given: CallRequest, context: CallContext): Promise<Response> {
    const { request, wish } = takeWish(given);
    const { init } = request;
    context.pending += 1;
    try {
      const body = isChatCompletions(request.url) ? readChat(request.body) : undefined;
      if (!body) return await this.#callUnread(request);
      const chain = await this.#chainOf(body);
      const { catalogue, resilience, responses, maxOutputTokens } = this.#options;
      const facts = catalogue.of(chain[0] ?? body.model);
      const question = { request, wish, body, model: facts.name, totalMs: facts.policy.total_ms };
      const response = await responses.answer(question, context, () =>
        resilience.ask({
          chain,
          tokens: Math.ceil(request.body.length / 4) + (ceilingOf(body, facts, 0) || maxOutputTokens),
          isStream: body.stream === true,
          signal: init.signal ?? undefined,
          send: (sent) => this.#send({ request, body, sent }, context),
        }),
      );
      return await asClientsTake(response);
    } catch (error) {
      if (init.signal?.aborted || !(error instanceof AppError)) throw error;
      context.refusal = error;
      return refusalOf(error);
    } finally {
      context.pending -= 1;
    }
  }

  /** A request in a form that is not read here: it passes where nothing is limited. */
  async #callUnread({ url, init, body }: CallRequest): Promise<Response> {
    if (await this.#options.spending.isLimited())
      throw new BudgetExceeded(
        "A budget applies, and this request to the model cannot be counted: only the chat completions API is. Nothing was sent.",
      );
    return plainFetch(url, { ...init, body });
  }

  async #chainOf(body: ChatBody): Promise<string[]> {
    const { catalogue } = this.#options;
    const facts = catalogue.of(body.model);
    const model = catalogue.hasRoutes
      ? catalogue.route(body.model, {
          // As near as can be counted, not the worst case; what cannot be counted is not short.
          promptTokens: await promptTokensOf(body, { ...facts, approximate: false }).catch(() => Infinity),
          hasTools: (body.tools?.length ?? 0) > 0,
        })
      : body.model;
    return [model, ...catalogue.of(model).fallback];
  }

  async #send(
    { request, body, sent }: { request: CallRequest; body: ChatBody; sent: Sent },
    context: CallContext,
  ): Promise<Response> {
    const { catalogue, spending, maxOutputTokens } = this.#options;
    const facts = catalogue.of(sent.model);
    const ceiling = ceilingOf(body, facts, maxOutputTokens);
    const choices = body.n ?? 1;
    let counted: Promise<number> | undefined;
    const charge = await sent.aside(async () => {
      // Clients leave at the last word and ask again at once: what that answer gives back may be what this one needs.
      await Promise.all(context.leaving);
      const plan = {
        payer: await context.payer(),
        facts,
        node: currentNode(),
        promptTokens: () => (counted ??= promptTokensOf(body, facts)),
        outputTokens: ceiling * choices,
        choices,
      };
      return spending.begin(plan, context.ahead);
    });
    const headers = new Headers(request.init.headers);
    // Under this name the provider's own logs find the call again.
    if (!headers.has("x-client-request-id")) headers.set("x-client-request-id", charge.callId);
    headers.delete("content-length"); // of the body that its client made
    const text = preparedBody(body, sent.model, charge.isReserved ? ceiling : undefined);
    const init = { ...request.init, headers, body: text, signal: sent.signal };
    const answered = await this.#sendOnce(request.url, init, charge);
    const response = await this.#charged(answered, { charge, choices, sent, context });
    // A frame that only we asked for would surprise a client.
    return charge.isReserved && body.stream && !asksForBill(body) ? withoutBill(response) : response;
  }

  async #sendOnce(url: string, init: RequestInit, charge: Charge): Promise<Response> {
    faultPoint("call.sending");
    if (init.signal?.aborted) {
      await charge.release();
      init.signal.throwIfAborted();
    }
    try {
      return await plainFetch(url, init);
    } catch (error) {
      const isSent = !NEVER_SENT.test(factsOf(error).code);
      await (isSent ? charge.settle(new Uint8Array(), false, false) : charge.release());
      throw error;
    }
  }

  async #charged(
    response: Response,
    { charge, choices, sent, context }: { charge: Charge; choices: number; sent: Sent; context: CallContext },
  ): Promise<Response> {
    if (response.ok && !response.body) {
      await charge.settle(new Uint8Array(), true, false);
      return response;
    }
    if (response.ok)
      return heard(response, (...end) => sent.aside(() => charge.settle(...end)), {
        choices,
        shown: context.shown,
        onLeave: charge.isReserved ? (leaving) => noteLeaving(context, leaving) : undefined,
      });
    // A proxy gave up waiting: what stands behind it may go on.
    if (MAY_GO_ON.has(response.status)) await charge.settle(new Uint8Array(), false, false);
    else await charge.release();
    return response;
  }
}

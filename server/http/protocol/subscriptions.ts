// What one WebSocket is subscribed to. The thread is followed once, however many subscriptions there are; a new one first
// gets what the others have passed already, and nothing newer comes in between.
import type { WebSocket } from "ws";
import { deadline } from "../../clock.ts";
import { AppError, CommandRefused, InputInvalid, RateLimited, messageOf, saidOf } from "../../errors.ts";
import type { Fields } from "../../fields.ts";
import { uuidv7 } from "../../ids.ts";
import type { Engine } from "../../runs/engine.ts";
import type { Shown } from "../../runs/protocol/entries.ts";
import { isWanted } from "../../runs/protocol/filter.ts";
import type { Filter } from "../../runs/protocol/filter.ts";
import { followThread, watch } from "../../runs/protocol/follow-thread.ts";
import { Reveal } from "../../runs/reveal.ts";
import { readCommand, run } from "./commands.ts";
import type { Command } from "./commands.ts";
import { parseBody } from "../edge/ingress.ts";
import { countRequest } from "../callers/limits.ts";
import { refuseUnknown } from "./routes.ts";
import { subscribe, unsubscribe } from "./schemas.ts";
import { check } from "../schemas.ts";
import { revealKey } from "../bindings.ts";
import type { Watcher } from "../bindings.ts";

const MOST = 1000;
const MOST_CHARACTERS = 8 * 1024 * 1024;
const FULL_BYTES = 1024 * 1024;
// A client that takes nothing for so long is cut off; it comes back and subscribes again.
const STALLED_MS = 60_000;
const FAILED = 1011;
/** By agreement with the official client: this and an HTTP status; most of those are final. */
export const HTTP_STATUS = 4000;

export class Subscriptions {
  readonly #engine: Engine;
  readonly #threadId: string;
  readonly #watcher: Watcher;
  readonly #socket: WebSocket;
  readonly #filters = new Map<string, Filter>();
  readonly #gone = new AbortController();
  /** One thing at a time is done and sent. */
  #turn: Promise<void> = Promise.resolve();
  #waiting = 0;
  #characters = 0;
  #isFollowing = false;
  /** The number of the last event that was passed, wanted or not. */
  #passed: number | undefined;

  constructor(engine: Engine, watcher: Watcher, socket: WebSocket) {
    this.#engine = engine;
    this.#watcher = watcher;
    this.#threadId = watcher.threadId;
    this.#socket = socket;
  }

  /** A command, as text. */
  hear(text: string): void {
    this.#waiting += 1;
    this.#characters += text.length;
    // A client that sends without waiting for answers must not fill this server's memory.
    if (this.#waiting >= MOST || this.#characters >= MOST_CHARACTERS) this.#socket.pause();
    void this.#inTurn(async () => {
      this.#waiting -= 1;
      this.#characters -= text.length;
      const hasRoom = this.#waiting < MOST / 2 && this.#characters < MOST_CHARACTERS / 2;
      if (this.#socket.isPaused && hasRoom) this.#socket.resume();
      await this.#do(text);
    });
  }

  close(): void {
    this.#gone.abort();
    this.#filters.clear();
  }

  #inTurn(work: () => Promise<void>): Promise<void> {
    const done = this.#turn.then(() => (this.#gone.signal.aborted ? undefined : work()));
    this.#turn = done.catch((error: unknown) => this.#fail(error));
    return this.#turn;
  }

  async #do(text: string): Promise<void> {
    let asked: Command;
    try {
      asked = readCommand(parseBody(text));
    } catch (error) {
      await this.#send({ type: "error", id: null, error: "invalid_argument", message: saidOf(error) });
      return;
    }
    const over = await countRequest(this.#watcher.context).catch((error: unknown) => ({ error }));
    if (over) {
      await this.#send(this.#refused(asked, over.error));
      return;
    }
    if (asked.method === "subscription.subscribe") {
      await this.#subscribe(asked);
      return;
    }
    const sent = { threadId: this.#threadId, text, context: this.#watcher.context };
    const more = (method: string, params: Fields): Fields | undefined =>
      method === "subscription.unsubscribe" ? this.#unsubscribe(params) : undefined;
    const answer = run(this.#engine, asked, sent, more);
    await this.#send(await answer.catch((error: unknown) => this.#refused(asked, error)));
  }

  async #subscribe(asked: Command): Promise<void> {
    const filter = filterOf(asked);
    if ("fault" in filter) {
      await this.#send({ type: "error", id: asked.id, error: "invalid_argument", message: filter.fault });
      return;
    }
    const id = uuidv7();
    await watch(this.#engine, this.#threadId);
    // Read twice: it may be more than this server wants to keep until a client has taken it.
    let count = 0;
    for await (const events of this.#missed(filter)) count += events.length;
    await this.#send({
      type: "success",
      id: asked.id,
      result: { subscription_id: id, replayed_events: count },
      meta: { thread_id: this.#threadId },
    });
    for await (const events of this.#missed(filter))
      for (const event of events) await this.#sendText(event.json());
    this.#filters.set(id, filter);
    if (!this.#isFollowing) void this.#follow();
  }

  /** What a new subscription wants of the events that were passed before it came. */
  async *#missed(filter: Filter): AsyncGenerator<Shown[]> {
    const passed = this.#passed;
    if (passed === undefined) return;
    for await (const events of this.#thread(passed)) {
      const end = events.findIndex(({ seq }) => seq >= passed);
      yield events.filter((event) => event.seq <= passed && isWanted(event, filter));
      if (end >= 0) return;
    }
  }

  #unsubscribe(params: Fields): Fields {
    const { subscription_id: id } = check(unsubscribe, params);
    if (!this.#filters.delete(id))
      throw new CommandRefused("no_such_subscription", `This socket has no subscription ${id}.`);
    return {};
  }

  async #follow(): Promise<void> {
    this.#isFollowing = true;
    const { signal } = this.#gone;
    try {
      for await (const events of this.#thread())
        await this.#inTurn(async () => {
          for (const event of events) {
            this.#passed = event.seq;
            const isAsked = [...this.#filters.values()].some((filter) => isWanted(event, filter));
            if (isAsked) await this.#sendText(event.json());
          }
        });
    } catch (error) {
      if (!signal.aborted) this.#fail(error);
    }
  }

  #thread(through?: number): AsyncGenerator<Shown[]> {
    const { mayFollow } = this.#watcher;
    return followThread(this.#engine, this.#threadId, { mayFollow, through, signal: this.#gone.signal });
  }

  #refused({ id }: Command, error: unknown): Fields {
    const level = error instanceof RateLimited ? "debug" : "warn";
    this.#engine.log[level]("command.failed", { thread_id: this.#threadId, reason: messageOf(error) });
    return { type: "error", id, error: "unknown_error", message: saidOf(error) };
  }

  #send(message: Fields): Promise<void> {
    return this.#sendText(JSON.stringify(message));
  }

  async #sendText(told: string): Promise<void> {
    const socket = this.#socket;
    const reveal = this.#watcher.context.get(revealKey);
    const text = reveal instanceof Reveal ? await reveal.text(told) : told;
    if (socket.readyState !== socket.OPEN) return;
    if (socket.bufferedAmount < FULL_BYTES) {
      socket.send(text);
      return;
    }
    const taken = new Promise<void>((resolve) => socket.send(text, () => resolve()));
    const tooLate = deadline(STALLED_MS, this.#gone.signal);
    const late = new Promise<void>((resolve) =>
      tooLate.addEventListener("abort", () => resolve(), { once: true }),
    );
    await Promise.race([taken, late]);
    if (tooLate.aborted) socket.terminate();
  }

  #fail(error: unknown): void {
    this.#engine.log.warn("socket.broken", { thread_id: this.#threadId, reason: messageOf(error) });
    const status = error instanceof AppError && error.status < 500 ? HTTP_STATUS + error.status : FAILED;
    this.#socket.close(status, "Come back and subscribe again.");
  }
}

function filterOf({ params }: Command): Filter | { fault: string } {
  try {
    const filter = check(subscribe, params);
    refuseUnknown(filter);
    return filter;
  } catch (error) {
    if (!(error instanceof InputInvalid)) throw error;
    return { fault: error.message };
  }
}

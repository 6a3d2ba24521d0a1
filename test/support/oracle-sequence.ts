// What is done to the two sides of oracle.ts: each operation chosen by chance that can be replayed, with an eye on what
// the threads are at just then, and done to both; what they then show is compared.
import { randomUUID } from "node:crypto";
import { expect } from "vitest";
import type { Random } from "../../server/commands/chaos/random.ts";
import { NODES, WAYS } from "../fixtures/oracle.ts";
import { oracleSide } from "./oracle.ts";
import type { Ask, Change, Side, View } from "./oracle.ts";

const MOST_THREADS = 6;
// Longer ones cost time and show nothing new: they are deleted.
const MOST_CHECKPOINTS = 30;

const goOn = (): Partial<Ask> => ({ input: null });

function agree(what: string, ours: unknown, theirs: unknown): void {
  expect(ours, `${what}: ours, expected as the oracle has it`).toEqual(theirs);
}

/** A thread as both sides show it; ids by place, ours and the oracle's. */
interface Known {
  readonly view: View;
  readonly ours: readonly string[];
  readonly theirs: readonly string[];
}

export class Pair {
  readonly #ours: Side;
  readonly #theirs = oracleSide();
  readonly threads = new Map<string, Known>();

  constructor(ours: Side) {
    this.#ours = ours;
  }

  async create(): Promise<string> {
    const threadId = randomUUID();
    await this.#ours.create(threadId);
    await this.#theirs.create(threadId);
    return threadId;
  }

  /** @returns how it ended on both sides */
  async run(threadId: string, ask: Ask, place?: number): Promise<[string, string]> {
    const { ours, theirs } = this.#at(threadId, place);
    return [await this.#ours.run(threadId, ask, ours), await this.#theirs.run(threadId, ask, theirs)];
  }

  async update(threadId: string, change: Change, place?: number): Promise<[boolean, boolean]> {
    const { ours, theirs } = this.#at(threadId, place);
    return [
      await this.#ours.update(threadId, change, ours),
      await this.#theirs.update(threadId, change, theirs),
    ];
  }

  async copy(threadId: string): Promise<string> {
    return this.#theirs.copy(threadId, await this.#ours.copy(threadId));
  }

  /** @returns nothing that could be looked at */
  async delete(threadId: string): Promise<undefined> {
    await this.#ours.delete(threadId);
    await this.#theirs.delete(threadId);
    this.threads.delete(threadId);
    return undefined;
  }

  /** Compares all that can be read of a thread. */
  async compare(threadId: string): Promise<void> {
    const [ours, theirs] = [await this.#ours.look(threadId), await this.#theirs.look(threadId)];
    agree("what can be read", ours.view, theirs.view);
    this.threads.set(threadId, { view: theirs.view, ours: ours.ids, theirs: theirs.ids });
  }

  #at(threadId: string, place: number | undefined): { ours?: string; theirs?: string } {
    const known = this.threads.get(threadId);
    const [ours, theirs] = place === undefined ? [] : [known?.ours[place], known?.theirs[place]];
    return ours !== undefined && theirs !== undefined ? { ours, theirs } : {};
  }
}

const asks = ({ state }: View): boolean => state.tasks.some(({ interrupts }) => interrupts.length > 0);

/** Something that is done to a thread on both sides; who does it tells which thread to look at, if one is left. */
export interface Operation {
  readonly kind: string;
  readonly about: object;
  readonly perform: () => Promise<string | undefined>;
}

export const KINDS = [
  "create",
  "run",
  "run to a breakpoint",
  "go on",
  "command",
  "resume",
  "update",
  "fork by update",
  "fork by run",
  "copy",
  "delete",
] as const;
type Kind = (typeof KINDS)[number];

// How often each comes up, against the others.
const WEIGHTS: Record<Kind, number> = {
  create: 5,
  run: 20,
  "run to a breakpoint": 12,
  "go on": 12,
  command: 14,
  resume: 20,
  update: 12,
  "fork by update": 10,
  "fork by run": 16,
  copy: 7,
  delete: 4,
};
const LOTS = KINDS.flatMap((kind) => Array.from({ length: WEIGHTS[kind] }, () => kind));

export class Sequence {
  readonly #pair: Pair;
  readonly #random: Random;
  #count = 0;
  /** How runs ended and whether changes were taken. */
  readonly ends = new Set<string>();

  constructor(pair: Pair, random: Random) {
    this.#pair = pair;
    this.#random = random;
  }

  next(): Operation {
    this.#count += 1;
    const random = this.#random;
    const live = [...this.#pair.threads];
    const [long] = live.find(([, { ours }]) => ours.length > MOST_CHECKPOINTS) ?? [];
    if (long !== undefined) return this.#operation("delete", long);
    if (live.length < 2) return this.#operation("create", "");
    const [threadId, { view, ours }] = random.pick(live);
    const kind = random.pick(LOTS);
    const isFull = live.length >= MOST_THREADS;
    if ((kind === "create" || kind === "copy") && isFull) return this.#operation("delete", threadId);
    if (kind === "resume" && !asks(view)) return this.#operation("go on", threadId);
    if (kind.startsWith("fork") && ours.length === 0) return this.#operation("run", threadId);
    return this.#operation(kind, threadId);
  }

  #operation(kind: Kind, threadId: string): Operation {
    const known = this.#pair.threads.get(threadId);
    const place = kind.startsWith("fork")
      ? this.#random.between(0, (known?.ours.length ?? 1) - 1)
      : undefined;
    const input = (): Partial<Ask> => ({ input: this.#input() });
    const resume = (): Partial<Ask> => ({ resume: `answer ${this.#count}` });
    const at = (): (typeof NODES)[number][] | "*" =>
      this.#random.chance(0.1) ? "*" : [this.#random.pick(NODES)];
    const breakpoint = (): Partial<Ask> => ({
      ...this.#random.pick([input, input, goOn])(),
      ...(this.#random.chance(0.6) ? { interruptBefore: at() } : { interruptAfter: at() }),
    });
    const command = (): Partial<Ask> => ({
      command: this.#random.pick<Record<string, unknown>>([
        { goto: this.#random.pick(NODES) },
        { goto: [{ node: "each", input: { item: `sent ${this.#count}` } }, this.#random.pick(NODES)] },
        { resume: `with ${this.#count}`, goto: this.#random.pick(NODES) },
        { goto: "nobody" },
        { resume: "" },
        { resume: false },
        {},
      ]),
    });
    const run = (ask: () => Partial<Ask>) => () => this.#run(kind, threadId, ask(), place);
    const update = (): Operation => this.#update(kind, threadId, place);
    const other = (perform: Operation["perform"]) => () => ({ kind, about: { threadId }, perform });
    const ways: Record<Kind, () => Operation> = {
      create: other(() => this.#pair.create()),
      run: run(input),
      "run to a breakpoint": run(breakpoint),
      "go on": run(goOn),
      command: run(command),
      resume: run(resume),
      update,
      "fork by update": update,
      "fork by run": run(() => this.#random.pick([input, goOn, resume, command])()),
      copy: other(() => this.#pair.copy(threadId)),
      delete: other(() => this.#pair.delete(threadId)),
    };
    return ways[kind]();
  }

  #run(kind: Kind, threadId: string, part: Partial<Ask>, place: number | undefined): Operation {
    const ask = { durability: this.#random.pick(["sync", "async", "exit"] as const), ...part };
    return {
      kind,
      about: { threadId, ask, place },
      perform: async () => {
        const [ours, theirs] = await this.#pair.run(threadId, ask, place);
        agree("how the run ended", ours, theirs);
        this.ends.add(ours.replace(/:.*/s, ""));
        return threadId;
      },
    };
  }

  #update(kind: Kind, threadId: string, place: number | undefined): Operation {
    const asNode = this.#random.chance(0.6)
      ? this.#random.pick([...NODES, ...NODES, "__start__", "__end__", "__copy__", "__input__", "nobody"])
      : undefined;
    const values = this.#random.chance(asNode?.startsWith("__") ? 0.6 : 0.1) ? null : this.#change();
    const change = { values, ...(asNode ? { asNode } : {}) };
    return {
      kind,
      about: { threadId, change, place },
      perform: async () => {
        const [ours, theirs] = await this.#pair.update(threadId, change, place);
        agree("whether the update was taken", ours, theirs);
        this.ends.add(ours ? "taken" : "refused");
        return threadId;
      },
    };
  }

  #input(): Record<string, unknown> {
    const id = `message ${this.#count}`;
    return {
      messages: [{ type: "human", id, content: `question ${this.#count}` }],
      way: this.#random.pick(WAYS),
      ...(this.#random.chance(0.5) ? { topic: `given ${this.#count}` } : {}),
    };
  }

  #change(): Record<string, unknown> {
    return this.#random.pick<Record<string, unknown>>([
      { topic: `changed ${this.#count}` },
      { log: [`changed ${this.#count}`] },
      { way: this.#random.pick(WAYS) },
      { messages: [{ type: "ai", id: "answer 1", content: `changed ${this.#count}` }], log: ["and more"] },
      { messages: [{ type: "remove", id: "answer 1" }] },
      { messages: [{ type: "remove", id: "__remove_all__" }] },
      {},
    ]);
  }
}

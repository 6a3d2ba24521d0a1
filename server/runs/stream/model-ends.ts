// When the call of a model is over. What a graph tells does not say it: its node may work on for long, or ask another model,
// and the last word of the answer, which is held back until nothing more can come, would wait for the end of the node.
import { BaseCallbackHandler } from "@langchain/core/callbacks/base";

/** Stands among what a graph tells, before or behind the piece that the call told last. */
export class ModelEnd {
  readonly last: object;

  constructor(last: object) {
    this.last = last;
  }
}

/** Hears of the calls of models that a run makes. */
export class ModelEnds extends BaseCallbackHandler {
  readonly name = "model-ends";
  readonly #tell: (end: ModelEnd) => void;
  readonly #last = new Map<string, object>();
  readonly #calls = new WeakMap<object, string>();

  constructor(tell: (end: ModelEnd) => void) {
    // One that is called later would come behind what follows.
    super({ _awaitHandler: true, ignoreChain: true, ignoreAgent: true, ignoreRetriever: true });
    this.#tell = tell;
  }

  /** The call that a piece is of; undefined for one that no call of a model told. */
  callOf(piece: object): string | undefined {
    return this.#calls.get(piece);
  }

  override handleLLMNewToken(...[, , callId, , , fields]: Token): void {
    const piece: unknown = Object(fields?.chunk).message;
    if (typeof piece !== "object" || piece === null) return;
    this.#last.set(callId, piece);
    this.#calls.set(piece, callId);
  }

  override handleLLMEnd(_output: unknown, callId: string): void {
    const last = this.#last.get(callId);
    this.#last.delete(callId);
    if (last) this.#tell(new ModelEnd(last));
  }

  /** Half an answer has no last word. */
  override handleLLMError(_error: unknown, callId: string): void {
    this.#last.delete(callId);
  }
}

type Token = Parameters<NonNullable<BaseCallbackHandler["handleLLMNewToken"]>>;

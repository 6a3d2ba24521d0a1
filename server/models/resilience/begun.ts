// Whether a streamed answer has begun: whether a client could have seen anything of it. Until then a call may be made
// again without a trace; after that never. Frames with nothing but a role, a filter's findings or a comment show nothing.

/** Undefined: not yet. `broken`: what came is no answer, and nothing of it was shown. */
export type Verdict = "begun" | "broken" | undefined;

export class Beginning {
  readonly #decoder = new TextDecoder();
  #line = "";

  /** Looks at the next bytes, which may end anywhere. */
  read(bytes: Uint8Array): Verdict {
    const lines = (this.#line + this.#decoder.decode(bytes, { stream: true })).split(/[\r\n]+/);
    this.#line = lines.pop() ?? "";
    for (const line of lines) {
      const verdict = verdictOn(line);
      if (verdict) return verdict;
    }
    return undefined;
  }

  /** Nothing more comes. */
  end(): Exclude<Verdict, undefined> {
    return verdictOn(this.#line) ?? "broken";
  }
}

function verdictOn(line: string): Verdict {
  const data = line.startsWith("data:") ? line.slice(5).trim() : "";
  if (data === "") return undefined;
  if (data === "[DONE]") return "begun";
  try {
    return verdictOnFrame(JSON.parse(data));
  } catch {
    return "broken";
  }
}

function verdictOnFrame(frame: unknown): Verdict {
  if (!isRecord(frame)) return "broken";
  if (isSaying(frame["error"])) return "broken";
  // No chat completion: what it shows is not known, so it is held to show something.
  if (!Array.isArray(frame["choices"])) return "begun";
  return frame["choices"].some(isShowing) ? "begun" : undefined;
}

function isShowing(choice: unknown): boolean {
  if (!isRecord(choice)) return true;
  if (isSaying(choice["finish_reason"])) return true;
  const delta = isRecord(choice["delta"]) ? choice["delta"] : {};
  return Object.entries(delta).some(([key, value]) => key !== "role" && isSaying(value));
}

const isSaying = (value: unknown): boolean =>
  value !== undefined && value !== null && value !== "" && !(Array.isArray(value) && value.length === 0);

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value);

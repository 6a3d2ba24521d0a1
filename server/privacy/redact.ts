// Replaces personal data and secrets in a text by placeholders. Pure; redacting twice changes nothing.
import { placeholderOf, redactionStream } from "./redact-stream.ts";
import type { RedactionStream, Replace } from "./redact-stream.ts";
import { names as nameRules } from "./rules/names.ts";
import { structured } from "./rules/patterns.ts";
import { TOKEN_PATTERN, compileOwn, compileRule } from "./rules/rule.ts";
import type { CompiledRule, Own, Rule } from "./rules/rule.ts";
import type { Vault } from "./vault.ts";

export type { RedactionStream } from "./redact-stream.ts";
export type { Own } from "./rules/rule.ts";

/** Finds personal data and secrets: by the rules that are always on, by names if asked to, and by own rules. */
export class Redactor {
  readonly #rules: readonly CompiledRule[];

  /**
   * @param options names: also look for names of persons (off by default); own: the operator's own rules
   * @throws ConfigInvalid when an own rule is not bounded; the message names the rule and the construct
   */
  constructor({ names = false, own = [] }: { readonly names?: boolean; readonly own?: readonly Own[] } = {}) {
    this.#rules = [...compiledStructured(), ...(names ? compiledNames() : []), ...own.map(compileOwn)];
  }

  /**
   * Replaces every finding by its placeholder, such as [REDACTED_EMAIL].
   * @param onFound told the kind of each finding
   */
  redact(text: string, onFound?: (kind: string) => void): string {
    return this.stream(onFound).push(text, true);
  }

  /** The same for a text that comes in pieces. */
  stream(onFound?: (kind: string) => void): RedactionStream {
    return redactionStream(this.#rules, onFound);
  }

  /**
   * For a text on a thread that has a vault: a finding becomes its token, and a token stays one, also when it comes in
   * pieces.
   */
  tokenising(vault: Vault, onFound: (kind: string) => void = () => {}): RedactionStream {
    const replace: Replace = (kind, found) => {
      // What hangs together with a token is no part of it.
      if (kind === TOKENS.kind) return IS_TOKEN.test(found) ? found : "[REDACTED]";
      return vault.token(kind, found) ?? placeholderOf(kind, found);
    };
    const told = (kind: string): void => {
      if (kind !== TOKENS.kind) onFound(kind);
    };
    return redactionStream([compiledTokens(), ...this.#rules], told, replace);
  }
}

let compiled: readonly CompiledRule[] | undefined;
let compiledForNames: readonly CompiledRule[] | undefined;
let plain: Redactor | undefined;

/**
 * Replaces e-mail addresses, phone, card, US social security and bank account numbers, addresses of machines
 * and houses, dates of birth, API keys and passwords. Names of persons stay.
 * @example redactText("write to ada@example.org") // "write to [REDACTED_EMAIL]"
 */
export function redactText(text: string): string {
  plain ??= new Redactor();
  return plain.redact(text);
}

// Once per process, and not before the first text: an import should start nothing.
function compiledStructured(): readonly CompiledRule[] {
  compiled ??= structured.map(compileRule);
  return compiled;
}

/** No rule of an operator can be of this kind. */
const TOKENS: Rule = { kind: "token", pattern: TOKEN_PATTERN };
const IS_TOKEN = new RegExp(`^${TOKEN_PATTERN}$`);
let compiledToken: CompiledRule | undefined;

function compiledTokens(): CompiledRule {
  compiledToken ??= compileRule(TOKENS);
  return compiledToken;
}

function compiledNames(): readonly CompiledRule[] {
  compiledForNames ??= nameRules.map(compileRule);
  return compiledForNames;
}

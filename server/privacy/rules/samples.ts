// Characters to try two parts of a pattern with: whether one text can be shared between them is what hostile text costs.

const ASCII = Array.from({ length: 128 }, (_, code) => String.fromCharCode(code));
// One of each kind that a class by property tells apart: letters of both cases and of none, digits, marks, signs, spaces.
const OTHERS = Array.from("éÉßяЯαΩאا社ひカ한กत٣３²Ⅷ\u0301€№–¿«»😀\u00a0\u2003\u2028\u200b");
const ESCAPED =
  /\\u\{([0-9a-fA-F]{1,6})\}|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\x([0-9a-fA-F]{2})/g;

/**
 * All of ASCII, one beyond it of each kind, and all that the pattern itself names: where two ranges overlap, an end of
 * one lies in the other.
 */
export function samplesFor(pattern: string): readonly string[] {
  const escaped = [...pattern.matchAll(ESCAPED)].map(([, long, high, low, short, byte]) =>
    high && low
      ? String.fromCharCode(Number.parseInt(high, 16), Number.parseInt(low, 16))
      : fromCode(Number.parseInt(long ?? short ?? byte ?? "", 16)),
  );
  return [...new Set([...ASCII, ...OTHERS, ...Array.from(pattern), ...escaped])];
}

const fromCode = (code: number): string => (code > 0x10ffff ? "" : String.fromCodePoint(code));

const known = new Map<string, RegExp | undefined>();

/**
 * Whether a part of a pattern matches a character.
 * @param flags of the rule; a part that is no expression at all matches everything: whoever compiles the rule says so
 */
export function takes(source: string, flags: string, character: string): boolean {
  const key = `${flags}/${source}`;
  if (!known.has(key)) known.set(key, expressionOf(source, flags));
  const expression = known.get(key);
  if (!expression) return true;
  expression.lastIndex = 0;
  return (expression.exec(character)?.[0] ?? "") !== "";
}

function expressionOf(source: string, flags: string): RegExp | undefined {
  try {
    return new RegExp(source, `${flags}uy`);
  } catch {
    return undefined;
  }
}

// Secrets: private keys, passwords in addresses, tokens of known vendors, and what stands after a word that says so.
import type { Rule, Span } from "./rule.ts";

const kind = "SECRET";
// A long token is dropped to its end, so that a stream need not hold it.
const token = { until: String.raw`(?=[^\w+/=~.:%-])`, most: 16_000 };
// A line break that JSON writes as \n is part of a value that goes on behind it. Where a line of JSON ends in JSON inside
// of JSON, it does not.
const goesOn = String.raw`[\r\v](?![\s)}\]])`;
// A parameter may follow a value in an address; another & may be part of a password. Backslashes before a quote are
// the quote's, and brackets that close at the end are not the value's: without them, JSON would be broken.
const value = {
  until: String.raw`(?=["'<>,;\x60]|(?!${goesOn})\s|\\{1,7}["']|&[\w.-]{1,30}=|[)}\]]{1,12}[.:!?]{0,2}(?:[\s"',;]|\\{1,7}["']))`,
  last: String.raw`(?=[)}\]]{1,12}[.:!?]{0,2}$)`,
  most: 16_000,
};
// What is quoted ends at its own quote. A quote behind a backslash is part of it, unless the backslash is one too; in
// JSON inside of JSON there are twice as many. So many backslashes has a quote there, by how deep it stands:
const depths = [1, 3, 7];
const quotes = ['"', "'", String.raw`\x60`];
const quoted = [
  ...quotes.map((quote) => ({ until: String.raw`(?<!\\)(?:\\\\){0,8}(?=${quote})|(?=\n)`, most: 2000 })),
  ...depths.map((own) => ({
    until: String.raw`(?<!\\)(?:\\{${2 * own + 2}}){0,4}(?=\\{${own}}["'\x60])|(?<!\\)(?=["'\n\x60])`,
    most: 2000,
  })),
];
// A plain character stands last: what follows is read as if nothing stood before it.
const inQuotes = [
  ...quotes.map(
    (quote) => String.raw`${quote}(?!\[REDACTED)(?:[^${quote}\n\\]|\\[^\n]){3,11}?[^${quote}\n\\]`,
  ),
  ...depths.map(
    (own) =>
      String.raw`\\{${own}}["'\x60](?!\[REDACTED)(?:[^"'\n\x60\\]|\\{${2 * own + 2}}|\\{${2 * own + 1}}["'\x60]|\\(?![\\"'\x60])|\\{${own + 1}}(?![\\"'\x60])){3,11}?[^"'\n\x60\\]`,
  ),
].join("|");
const QUOTES = "\"'`";
const OPEN = /[:=>]\s{0,3}(?:(?:Bearer|Basic|Token)\s{1,3})?(\\*)(["'\x60])/i;
// What a key consists of, and the heads that may stand in it. Behind another character it goes on if more of one follows:
// each line may have a mark of its own.
const noKey = String.raw`[^A-Za-z0-9+/=\s\\:,-](?![^]{0,40}(?:[A-Za-z0-9+/]{30}|-----END))`;
const armour = String.raw`-----END [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----`;

const starts = [
  String.raw`(?:AKIA|ASIA|AIDA|AROA|ABIA|ACCA)[A-Z0-9]{16}`,
  String.raw`gh[pousr]_[A-Za-z0-9]{20}`,
  String.raw`github_pat_\w{20}`,
  String.raw`gl(?:pat|ptt|dt|rt|cbt|soat|ft|agent|oas)-[\w-]{20}`,
  String.raw`xox[abeoprs]-[\w-]{10}`,
  String.raw`xapp-\d-[\w-]{10}`,
  String.raw`sk-[\w-]{16}`,
  String.raw`(?:[srp]k|whsec)_(?:(?:live|test|prod)_)?(?=\w{0,20}\d)\w{10}`,
  String.raw`AIza[\w-]{35}`,
  String.raw`ya29\.[\w-]{20}`,
  String.raw`GOCSPX-[\w-]{20}`,
  String.raw`SG\.[\w-]{16}`,
  String.raw`(?:npm|hf|lin_api|lin_oauth|gsk|dckr_pat|dckr_oat|ntn|figd|glsa|glc|rubygems|sbp|r8|pul|sntrys|atlasv1|pscale_tkn|pscale_oauth|ops)_[\w-]{16}`,
  String.raw`shp(?:at|ca|pa|ss)_[A-Za-z0-9]{20}`,
  String.raw`do[opr]_v1_[a-f0-9]{32}`,
  String.raw`(?:pypi|pplx|xai|tskey|PMAK|NRAK|HRKU|sq0atp|sq0csp|nvapi|pul|phc|pnu)-[\w-]{16}`,
  String.raw`ATATT3[\w-]{20}`,
  String.raw`hv[sb]\.[\w-]{20}`,
  String.raw`dp\.(?:pt|st|ct|sa|scim|audit)\.[\w.-]{20}`,
  String.raw`dapi[a-f0-9]{32}`,
  String.raw`AGE-SECRET-KEY-1[A-Z0-9]{20}`,
  String.raw`(?:api|key|tok|token|secret)[-_](?=[\w-]{0,20}\d)[A-Za-z0-9_-]{20}`,
  String.raw`(?:AC|SK)[a-f0-9]{32}`,
  String.raw`[a-f0-9]{32}-us\d{1,2}`,
  String.raw`\d{8,10}:AA[\w-]{33}`,
  String.raw`eyJ[\w-]{17}`,
  String.raw`T[A-Z0-9]{8,11}\/B[A-Z0-9]{8,11}\/[A-Za-z0-9]{20}`,
];

// No border before them: DB_PASSWORD and refreshToken say it too.
const words = [
  String.raw`pass(?:word|wd|phrase|code)?`,
  "pwd",
  String.raw`secret(?:[_ -]?(?:access[_ -]?)?key|[_ -]?token)?`,
  String.raw`(?:api|access|account|auth|private|encryption|master|signing|license|subscription|storage|service)[_ -]?key`,
  // Counts of tokens are no secret.
  String.raw`token(?!s?["']?\s{0,3}[:=]{1,2}\s{0,3}\d{1,9}(?![\w-])|s["']?\s{0,3}[:=]{1,2}\s{0,3}\d{1,15}(?![\w-]))`,
  "bearer",
  "credential",
].join("|");
/** Whether a text ends with such a word. */
export const SAYS_SECRET = new RegExp(`(?:${words})s?$`, "i");
const label = String.raw`(?:${words})s?(?:\\{0,7}["']\]?)?`;
const sign = String.raw`\s{0,3}(?:[:=]{1,2}|=>|:=)\s{0,3}(?:(?:Bearer|Basic|Token)\s{1,3})?`;
// Code that says of what type it is, or where it stands, says nothing of it.
const code = String.raw`(?:string|number|boolean|unknown|undefined|null|true|false|none|optional|required|process\.env|os\.environ|os\.getenv|env)`;
// Nor is a list its own value: with its first bracket gone it would be none.
const notYet = String.raw`(?![:=]|\$\{|[[{][\s\d"'[{-]|(?:Bearer|Basic)\s|${code}(?![\w-]))`;
// A bracket that closes is part of a value when the value goes on behind it.
const closing = String.raw`[)}\]](?=[)}\]]{0,11}[^\s"',;)}\]\\])`;
const character = String.raw`(?:[^\s"',;<>\x60\[\\)}\]]|${closing}|\[(?!REDACTED)|${goesOn}|\\(?!\\{0,6}["']))`;
// A sentence about a password goes on with a plain word; a value has something else in it.
const notPlain = String.raw`(?=[\p{L}.!?-]{0,30}[\d@#$%^&*_+=~])`;

export const secrets: readonly Rule[] = [
  {
    kind,
    pattern: String.raw`-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----`,
    opens: [
      { until: `${armour}|(?=${noKey}[^]{70})`, last: `(?=${noKey})`, most: 16_000 },
      // Its heads may hold anything.
      { until: armour, most: 16_000 },
    ],
    opensAs: (match) => (match.endsWith(" BLOCK-----") ? 1 : 0),
  },
  {
    kind,
    pattern: String.raw`(?<![a-z0-9])[a-z][a-z0-9+.-]{1,20}(?::[a-z][a-z0-9+.-]{1,20})?:\/\/[^\s\/:@"'<>\[\]]{0,128}:[^\s\/@"'<>\[\]]{1,128}@[^\s"'<>\[\]]`,
    flags: "i",
    needs: /:\/\//g,
    opens: { until: String.raw`(?=[\s"'<>\[\],;)])`, most: 2000 },
  },
  { kind, pattern: String.raw`(?<![\p{L}\p{N}])(?:${starts.join("|")})`, opens: token },
  {
    kind,
    pattern: String.raw`${label}${sign}(?:${inQuotes})`,
    flags: "i",
    needs: /[:=]/g,
    spansIn: quotedIn,
    opens: quoted,
    opensAs,
  },
  {
    kind,
    pattern: String.raw`${label}${sign}${notYet}(${character}{6})`,
    flags: "i",
    group: 1,
    needs: /[:=]/g,
    opens: value,
  },
  {
    kind,
    pattern: String.raw`(?:${words})s?\s{1,3}(?:is|was|to|as)\s{1,3}["']?${notYet}${notPlain}(${character}{6})`,
    flags: "i",
    group: 1,
    opens: value,
  },
  {
    kind,
    pattern: String.raw`\b(?:Bearer|Basic)\s{1,3}([\w.~+\/=-]{16})`,
    group: 1,
    opens: token,
  },
  {
    kind,
    pattern: String.raw`\bIDENTIFIED\s{1,3}(?:WITH\s{1,3}\w{1,30}\s{1,3})?BY\s{1,3}(?:PASSWORD\s{1,3})?["'](?!\[REDACTED)([^"'\n])`,
    flags: "i",
    group: 1,
    opens: { until: String.raw`(?=["'\n\x60]|\\["'])`, most: 2000 },
  },
];

/** The end that its first quote asks for: that quote, or one as deep. */
function opensAs(match: string): number {
  const [, { length } = "", quote = ""] = OPEN.exec(match) ?? [];
  return length === 0 ? QUOTES.indexOf(quote) : QUOTES.length + depths.indexOf(length);
}

/** What stands in the quotes. */
function quotedIn(match: string): readonly Span[] {
  const open = OPEN.exec(match);
  return [{ start: open ? open.index + open[0].length : 0, end: match.length }];
}

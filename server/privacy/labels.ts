// Names of fields that say what stands under them: a password or a number of the social security has no shape of its own.
// The rules know such names in front of a value, so they are shown both as a text. The list is closed: words that mean
// much else (number, line, text, key, id) are none, and neither are ids by which applications find their own things.
/** Gives back a text without what must not be kept: the same text when there is nothing. */
export type RedactText = (text: string) => string;

const NUMBER = "(?:_?(?:no|num|number))?";
const LABEL = new RegExp(
  [
    "(?:password|passwd|passphrase|passcode|secret|credential)s?$",
    "(?:^|_)pwd$",
    "(?:^|_)(?:api|access|account|auth|private|encryption|signing|master|service|storage|secret)_?keys?$",
    "(?:^|_)(?:api|access|auth|authorization|bearer|bot|client|csrf|id|oauth|personal|private|refresh|secret|security|service|session|xsrf)_?tokens?$",
    "^token$",
    `(?:^|_)(?:ssn|social|social_security|social_insurance)${NUMBER}$`,
    "(?:^|_)(?:dob|born|birth|birth_?day|birth_?date|date_of_birth)$",
    `(?:^|_)iban${NUMBER}$`,
    `(?:^|_)(?:(?:credit|debit|bank|payment)_?)?card${NUMBER}s?$`,
    String.raw`(?:^|_|cell|tele)(?:phone|mobile|fax|tel|whatsapp|sms)${NUMBER}s?(?:_?\d)?$`,
    `(?:^|_)(?:mrn|npi|itin|nhs|medicare|medicaid|medical_record|passport|drivers?_licen[cs]e)${NUMBER}$`,
    "(?:^|_)(?:national|tax|taxpayer|voter)_id$",
    "(?:^|_)(?:account|acct|routing|insurance|policy|licen[cs]e)_?(?:no|num|number)$",
  ].join("|"),
);
const LONGEST = 64;
/** Numbers below have too few digits for anything. */
const LEAST = 10_000;
/** Of what a tokenizer tells, `token` is the name too: a word or a piece of one. */
const MAY_BE_TOKEN = /^(?=\D*\d)\S{8,}$/;

// Names come again and again, so each is looked at once.
const REMEMBERED = 10_000;
const seen = new Map<string, string | null>();

/** The label that a name of a field is, as rules know it; undefined if it is none. */
export function labelOf(name: string): string | undefined {
  if (name === "" || name.length > LONGEST) return undefined;
  const known = seen.get(name);
  if (known !== undefined) return known ?? undefined;
  const words = name
    .replaceAll(/([a-z\d])(?=[A-Z])/g, "$1_")
    .replaceAll(/[\s.-]+/g, "_")
    .toLowerCase();
  const label = LABEL.test(words) ? words : null;
  if (seen.size >= REMEMBERED) seen.clear();
  seen.set(name, label);
  return label ?? undefined;
}

/** A text or number under a label without what must not be kept: `value` itself when nothing was found in it. */
export function redactLabelled<Value extends string | number | bigint>(
  label: string,
  value: Value,
  redact: RedactText,
): Value | string {
  const isText = typeof value === "string";
  if (isText ? label === "token" && !MAY_BE_TOKEN.test(value) : !isLong(value)) return value;
  const before = `{${JSON.stringify(label)}:${isText ? JSON.stringify(value) : String(value)}}`;
  const after = redact(before);
  return after === before ? value : valueIn(after);
}

const isLong = (value: string | number | bigint): boolean =>
  typeof value === "bigint" || (Number.isFinite(value) && Math.abs(Number(value)) >= LEAST);

function valueIn(json: string): string {
  try {
    return String(Object.values(JSON.parse(json) as object)[0]);
  } catch {
    return "[REDACTED]"; // an operator's own rule took a quote along
  }
}

// Numbers under which an office, a hospital or a bank knows a person. They have no shape of their own: the word
// before them, or the prefix that issuers put on them, tells what they are.
import { END } from "./numbers.ts";
import type { Rule } from "./rule.ts";

const kind = "ID";
const SURE = [
  String.raw`mrn|medical[ _-]?record|passport|driver'?s?[ _-]?licen[cs]e`,
  String.raw`(?:employee|emp|member|patient|subscriber|customer|insurance|national|tax|taxpayer|voter|student|badge)[ _-]?id`,
  String.raw`npi|itin|nhs|medicare|medicaid|sort[ _-]code`,
].join("|");
/** Words that mean much else: a sign or a word such as "number" has to follow. */
const VAGUE = String.raw`licen[cs]e|policy|insurance|(?:bank[ _-]?)?account|acct|routing|swift|bic|dea|ein|tin|nino|dl`;
const NUMBER = String.raw`[ _-]?(?:number|num|no|id|code|#)\.?`;
const SIGN = String.raw`\\{0,7}["']?\s{0,2}[:=#]\s{0,2}\\{0,7}["']?`;
const GAP = String.raw`["']?\s{1,2}(?:is\s{1,2}|was\s{1,2}|of\s{1,2})?#?["']?`;
const VALUE = String.raw`((?=(?:[A-Za-z-]{0,12}\d){3})[A-Za-z0-9][A-Za-z0-9-]{4,23})`;
const BEFORE = String.raw`(?<![\p{L}\p{N}])`;

export const identifiers: readonly Rule[] = [
  {
    kind,
    pattern: `${BEFORE}(?:${SURE})(?:${NUMBER})?(?:${SIGN}|${GAP})${VALUE}${END}`,
    flags: "i",
    group: 1,
  },
  {
    kind,
    pattern: `${BEFORE}(?:${VAGUE})(?:${NUMBER}(?:${SIGN}|${GAP})|${SIGN})${VALUE}${END}`,
    flags: "i",
    group: 1,
  },
  {
    kind,
    pattern: String.raw`${BEFORE}(?:account|acct)\s{1,2}(\d{7,17})${END}`,
    flags: "i",
    group: 1,
  },
  {
    kind,
    pattern: String.raw`\b(?:MRN|EMP|INS|POL|NID|DL|NPI|DEA|PAT|MBR|ACCT)[-_ ]?[A-Z]{0,2}\d{4,12}(?:-\d{1,6})?${END}`,
  },
];

// Ways to reach a person: e-mail, telephone, street address.
import type { Rule, Span } from "./rule.ts";

const PHONE_WORD =
  /(?:phone|\btel\b|mobile|\bfax|whatsapp|\bsms\b|\bring\b|\bdial|\bcell (?:no\b|num|#)|\b(?:call|text|reach|contact|answer)(?:ing)? (?:me|us|him|her|them)\b|\b(?:my|his|her|our|their|your) (?:number|line|cell)\b)[^\n]{0,24}$/i;
/** Words that mean much else: only a number in groups is a telephone number after them. */
const VAGUE_WORD = /(?:\bcall|\bcell|contact|\btext\b|number|reach|answer|\bline\b)[^\n]{0,24}$/i;
const COUNT_WORD = /\b(?:order|invoice|ticket|tracking|reference|ref|version|isbn|doi|pmid)\b[^\n]{0,8}$/i;
const GROUPED = /^(?:1[ .-])?(?:\(\d{3}\) ?|\d{3}[ .-])\d{3}[ .-]\d{4}(?:\D|$)/;
/** As in France: five pairs, which look like a date at first. */
const PAIRS = /^0[1-9]([-. /·]| {2})\d\d(?:\1\d\d){3}(?!\1?\d)/;
/** In an address, as withoutEscapes() leaves it. */
const PLUS = /%2 $/;
const LAST_GROUP = /[ /]+[^ /]*$/;
const AFTER = String.raw`(?=[\s,-]{1,2}\(?(?:office|fax|mobile|cell|home|work|phone|tel)\b)`;
/** An address with what a sentence in Chinese or Japanese goes on with. */
const SENTENCE = /^.*\.\p{L}{2,24}(?=[。｡])/su;
const STREET =
  "(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Way|Place|Pl|Square|Sq|Terrace|Ter|Parkway|Pkwy|Circle|Cir|Trail|Trl|Highway|Hwy|Loop|Row|Close|Crescent|Cres)";
const WORD = String.raw`\p{Lu}[\p{L}'’.-]{0,24}`;

export const contacts: readonly Rule[] = [
  {
    kind: "EMAIL",
    // What is glued to its end would look like a value of its own beside the placeholder.
    pattern: String.raw`[\p{L}\p{M}\p{N}._%+'-]{1,64}(?:@|%40|\s?\[(?:at|AT)\]\s?|\s?\((?:at|AT)\)\s?)[\p{L}\p{N}.-]{1,253}(?:\.|%2[Ee]|[。｡](?=[A-Za-z])|\s?\[(?:dot|DOT)\]\s?|\s?\((?:dot|DOT)\)\s?)\p{L}{2,24}[\p{L}\p{N}_-]{0,40}`,
    needs: /@|%40|[[(]at[\])]/gi,
    spansIn: (match) => [{ start: 0, end: SENTENCE.exec(match)?.[0].length ?? match.length }],
  },
  {
    kind: "PHONE",
    pattern: String.raw`(?<![\w.\/$€£-])(?:\+|00)?\(?\d[\d().\-\/ ·]{5,20}\d(?:\s{0,2}(?:x|ext\.?|extension)\s?\d{1,6})?(?![\w\/]|[.-]?(?:\d|\[REDACTED_))`,
    flags: "i",
    spansIn: phoneIn,
  },
  {
    kind: "PHONE",
    pattern: String.raw`(?<![\w.\/$€£-])\(?\d[\d().\-\/ ]{5,20}\d${AFTER}`,
    flags: "i",
    accepts: (match) => hasPhoneDigits(match, isInGroups(match) ? 6 : 9) && !isDate(match),
  },
  {
    kind: "ADDRESS",
    pattern: String.raw`(?<![\p{L}\p{N}_-])\d{1,6}[A-Za-z]?,? (?:${WORD} ){1,4}?${STREET}(?![\p{L}\p{N}_-]|\[REDACTED_)\.?(?:,? (?:Apt|Suite|Ste|Unit|Apartment|#)\.? ?[\w-]{1,8})?(?:,? (?:${WORD} ){0,2}${WORD},? [A-Z]{2},? \d{5}(?:-\d{4})?)?`,
  },
];

/** Two numbers may look like one that is too long: its longest start that is a number counts. */
function phoneIn(match: string, left: string): readonly Span[] | undefined {
  const pairs = PAIRS.exec(match)?.[0];
  if (pairs && !isCount(pairs) && !COUNT_WORD.test(left)) return [{ start: 0, end: pairs.length }];
  const isMeant = /^[+0(]/.test(match) || PLUS.test(left) || GROUPED.test(match) || isSpoken(match, left);
  for (let end = isMeant ? match.length : 0; end > 6; end = match.slice(0, end).search(LAST_GROUP)) {
    if (isPhone(match.slice(0, end), left)) return [{ start: 0, end }];
  }
  return undefined;
}

function isPhone(match: string, left: string): boolean {
  if (!hasPhoneDigits(match) || isDate(match)) return false;
  const digits = match.replaceAll(/\D/g, "");
  if (match.startsWith("+") || PLUS.test(left)) return digits.length >= 8;
  if (match.startsWith("00")) return digits.length >= 10;
  if (COUNT_WORD.test(left)) return false;
  const isNational = /^0\d{2,4}[ \-/.]?\d{3,4}/.test(match) && digits.length >= 9;
  return GROUPED.test(match) || isNational || /^\(0?\d{2,4}\)/.test(match) || isSpoken(match, left);
}

/** Whether pairs go on in small even steps: 05 10 15 20 25. */
function isCount(pairs: string): boolean {
  const [first = 0, second = 0, ...others] = pairs.split(/\D+/).map(Number);
  const step = second - first;
  return Math.abs(step) <= 10 && others.every((each, index) => each === second + (index + 1) * step);
}

const isSpoken = (match: string, left: string): boolean =>
  PHONE_WORD.test(left) || (isInGroups(match) && VAGUE_WORD.test(left));

/** Whether it stands in parts, and does not begin like a count of something. */
const isInGroups = (match: string): boolean => /^\D{0,3}\d{1,6}[^\da-z]{1,3}\d{1,8}(?!\d)/i.test(match);

function hasPhoneDigits(match: string, least = 7): boolean {
  const { length } = match.replaceAll(/\s{0,2}[xe].*$/gi, "").replaceAll(/\D/g, "");
  return length >= least && length <= 15 && !/^\D*(\d)(?:\D*\1)*\D*$/.test(match);
}

const DATE = [
  String.raw`(?:19|20)\d\d[-/. ]\d{1,2}[-/. ]\d{1,2}`,
  String.raw`\d{1,2}[-/.]\d{1,2}[-/.](?:19|20)?\d\d`,
  String.raw`(?:19|20)\d\d ?[-/] ?(?:19|20)\d\d`,
];
const STARTS_AS_DATE = new RegExp(String.raw`^(?:${DATE.join("|")})\b`);

const isDate = (match: string): boolean => STARTS_AS_DATE.test(match);

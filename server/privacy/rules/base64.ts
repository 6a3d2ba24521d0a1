// Bytes as letters: images in data: URLs, files, keys of a provider's own. A megabyte of them holds everything that looks
// like a short number or token by chance, and one placeholder inside destroys it.
import { CONTEXT } from "./prefix.ts";

const LETTERS = /^[A-Za-z0-9+/=]+$/;
const IN_DATA_URL = /;base64,[A-Za-z0-9+/]*$/;
/** Of 40 characters by chance, 1 in 1,000 has less of these. Words of a path have no capital in every sixth place. */
const LEAST = [
  [/[A-Z]/g, 6],
  [/[a-z]/g, 6],
  [/[0-9+/]/g, 1],
] as const;

/**
 * Whether a match stands in the midst of base64.
 * @param left up to 40 characters before it
 */
export function isInBase64(match: string, left: string): boolean {
  if (!/[A-Za-z0-9+/,]$/.test(left) || !LETTERS.test(match)) return false;
  if (IN_DATA_URL.test(left)) return true;
  if (left.length < CONTEXT || !LETTERS.test(left)) return false;
  return LEAST.every(([kind, least]) => (left.match(kind)?.length ?? 0) >= least);
}

// Where items of the store stand: a namespace as one text that sorts by byte. Labels hold no dot, so ".users.1." can only
// be [users, 1], and what stands under it is exactly the range from ".users.1." up to ".users.1/": never [users, 10].
import { InputInvalid, InputPoisoned, StoreNamespaceInvalid } from "../../errors.ts";
import { isStorable } from "../../privacy/storable.ts";

/** An entry of a B-tree index must stay below 2,704 bytes. */
const MOST_BYTES = 2000;

/** Texts from `from` on and below `to`. */
export interface PathRange {
  readonly from: string;
  readonly to: string;
}

/**
 * The place of an item.
 * @throws InputInvalid for an empty namespace or a name that is too long, StoreNamespaceInvalid for a wrong label,
 *   InputPoisoned for what PostgreSQL cannot hold
 */
export function placeOf(namespace: readonly string[], key: string): { path: string; key: string } {
  if (namespace.length === 0)
    throw new InputInvalid("The namespace is empty. Give at least one label, such as a user's id.");
  const path = pathOf(namespace);
  if (Buffer.byteLength(path) + Buffer.byteLength(key) > MOST_BYTES)
    throw new InputInvalid(
      `The namespace and the key together are longer than ${MOST_BYTES} bytes. Shorten them.`,
    );
  if (!isStorable(key)) throw poisoned("key");
  return { path, key };
}

/**
 * Everything under a prefix and the prefix itself; all there is under an empty one.
 * @throws StoreNamespaceInvalid, InputPoisoned
 */
export function rangeUnder(prefix: readonly string[]): PathRange {
  const from = pathOf(prefix);
  // "/" is the character after the dot.
  return { from, to: `${from.slice(0, -1)}/` };
}

/** @throws StoreNamespaceInvalid for a label that is empty or holds a dot, InputPoisoned */
export function checkLabels(labels: readonly string[]): void {
  if (labels.some((label) => label === "" || label.includes("."))) throw new StoreNamespaceInvalid();
  if (!labels.every(isStorable)) throw poisoned("label");
}

function pathOf(namespace: readonly string[]): string {
  checkLabels(namespace);
  return `.${namespace.map((label) => `${label}.`).join("")}`;
}

const poisoned = (what: string): InputPoisoned =>
  new InputPoisoned(`A ${what} of the store holds a NUL character or half a surrogate pair.`);

// The keys that wrap data keys. They come from outside and are never stored: what lies in the database can be read
// only together with them. The first wraps what is new; the others still open what they wrapped.
import { createCipheriv, createDecipheriv, createSecretKey, randomBytes } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { ConfigInvalid, DataKeyUnusable } from "../errors.ts";

const CIPHER = "aes-256-gcm";
const [BYTES, IV, TAG] = [32, 12, 16];
const LINE = /^([A-Za-z0-9._-]{1,64}):([A-Za-z0-9+/]{43}=)$/;

export class KeyRing {
  readonly #keys: ReadonlyMap<string, KeyObject>;
  /** The name of the key that wraps what is new. */
  readonly current: string;

  /**
   * @param text lines `name:key`, the key being 32 bytes in base64; empty lines and lines that begin with # are skipped
   * @throws ConfigInvalid that names the line, never the key
   */
  constructor(text: string) {
    const keys = new Map<string, KeyObject>();
    for (const [index, line] of text.split("\n").entries()) {
      const given = line.trim();
      if (given === "" || given.startsWith("#")) continue;
      const [, name, base64] = LINE.exec(given) ?? [];
      if (name === undefined || base64 === undefined)
        throw new ConfigInvalid(
          `HOLDFAST_KEYS, line ${index + 1}, is no key: it must be a name of letters, digits, dots or dashes, a colon and 32 bytes in base64, as holdfast keys new prints it.`,
        );
      if (keys.has(name)) throw new ConfigInvalid(`HOLDFAST_KEYS names the key ${name} twice.`);
      keys.set(name, createSecretKey(base64, "base64"));
    }
    const [first] = keys.keys();
    if (first === undefined)
      throw new ConfigInvalid("HOLDFAST_KEYS holds no key; holdfast keys new makes one.");
    this.#keys = keys;
    this.current = first;
  }

  get names(): readonly string[] {
    return [...this.#keys.keys()];
  }

  /** @param boundTo what the wrapped key is for: it is opened for nothing else */
  wrap(secret: Uint8Array, boundTo: readonly unknown[]): Buffer {
    const iv = randomBytes(IV);
    const cipher = createCipheriv(CIPHER, this.#keyOf(this.current), iv).setAAD(
      boundAs(this.current, boundTo),
    );
    return Buffer.concat([iv, cipher.update(secret), cipher.final(), cipher.getAuthTag()]);
  }

  /** @throws DataKeyUnusable when the key of that name is not in the ring, or the wrapped one was altered */
  unwrap(kekId: string, wrapped: Uint8Array, boundTo: readonly unknown[]): Buffer {
    const kek = this.#keyOf(kekId);
    const end = wrapped.length - TAG;
    try {
      const decipher = createDecipheriv(CIPHER, kek, wrapped.subarray(0, IV), { authTagLength: TAG });
      decipher.setAAD(boundAs(kekId, boundTo)).setAuthTag(wrapped.subarray(end));
      return Buffer.concat([decipher.update(wrapped.subarray(IV, end)), decipher.final()]);
    } catch (error) {
      throw new DataKeyUnusable(
        `A data key does not open with the key ${kekId}: it was altered, or another key has this name.`,
        { cause: error },
      );
    }
  }

  #keyOf(name: string): KeyObject {
    const key = this.#keys.get(name);
    if (key) return key;
    throw new DataKeyUnusable(`HOLDFAST_KEYS does not hold the key ${name}, which wraps stored data keys.`);
  }
}

/** A line for the ring, with a new key. */
export const newKeyLine = (name: string): string => `${name}:${randomBytes(BYTES).toString("base64")}`;

const boundAs = (kekId: string, boundTo: readonly unknown[]): Buffer =>
  Buffer.from(JSON.stringify(["holdfast data key", kekId, ...boundTo]));

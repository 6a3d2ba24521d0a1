// A sealed value can be read by whoever has its key, in the place that it was written for, and changed by nobody: what
// was altered, moved to another row or column, or put there unsealed is refused. AES-256-GCM of node:crypto.
//   version (1) | id of the key (16) | iv (12, random) | ciphertext | tag (16)
// The ciphertext holds one byte that says whether what follows is compressed: sealed data cannot be compressed later.
import { createCipheriv, createDecipheriv, randomBytes } from "node:crypto";
import type { KeyObject } from "node:crypto";
import { constants, zstdCompressSync, zstdDecompressSync } from "node:zlib";
import { SealedValueInvalid } from "../errors.ts";
import { uuidBytes, uuidOf } from "../ids.ts";

/** A key under which values are sealed. */
export interface DataKey {
  /** A UUID; it stands before each value that is sealed under the key. */
  readonly id: string;
  readonly secret: KeyObject;
}

/** Where a value stands: its table and column, and what names its row there. */
export type Place = readonly [table: string, column: string, ...row: string[]];

const VERSION = 1;
const CIPHER = "aes-256-gcm";
const [ID_END, IV_END, TAG] = [17, 29, 16];
/** Shorter than this nothing is sealed. */
export const LEAST_BYTES = IV_END + 1 + TAG;
/** Begins a text that is sealed; the rest of it is base64. */
const MARK = "~";

// A shorter value is hardly made smaller, and costs more time to compress than to seal.
const COMPRESSED_FROM = 1024;
const FAST = { params: { [constants.ZSTD_c_compressionLevel]: 1 } };
const [PLAIN, COMPRESSED] = [Buffer.from([0]), Buffer.from([1])];

export function seal(key: DataKey, place: Place, value: Uint8Array): Buffer {
  const head = Buffer.concat([Buffer.from([VERSION]), uuidBytes(key.id), randomBytes(12)]);
  const cipher = createCipheriv(CIPHER, key.secret, head.subarray(ID_END)).setAAD(boundTo(key.id, place));
  const isLong = value.length >= COMPRESSED_FROM;
  const parts = isLong ? [COMPRESSED, zstdCompressSync(value, FAST)] : [PLAIN, value];
  const sealed = parts.map((part) => cipher.update(part));
  return Buffer.concat([head, ...sealed, cipher.final(), cipher.getAuthTag()]);
}

/** @throws SealedValueInvalid when it was altered, is not sealed, or was sealed for another place or under another key */
export function unseal(key: DataKey, place: Place, sealed: Uint8Array): Buffer {
  const keyId = keyIdOf(place, sealed);
  const end = sealed.length - TAG;
  try {
    const decipher = createDecipheriv(CIPHER, key.secret, sealed.subarray(ID_END, IV_END), {
      authTagLength: TAG,
    });
    decipher.setAAD(boundTo(keyId, place)).setAuthTag(sealed.subarray(end));
    const opened = Buffer.concat([decipher.update(sealed.subarray(IV_END, end)), decipher.final()]);
    return opened[0] === 0 ? opened.subarray(1) : zstdDecompressSync(opened.subarray(1));
  } catch (error) {
    throw new SealedValueInvalid(place, "was altered, or was sealed for another place", { cause: error });
  }
}

/** The key under which a value is sealed. @throws SealedValueInvalid when it is not sealed */
export function keyIdOf(place: Place, sealed: Uint8Array): string {
  if (sealed.length < LEAST_BYTES || sealed[0] !== VERSION)
    throw new SealedValueInvalid(place, "is not sealed");
  return uuidOf(sealed.subarray(1, ID_END));
}

export const toText = (sealed: Buffer): string => MARK + sealed.toString("base64");

export const isSealedText = (text: string): boolean => text.startsWith(MARK);

/** The bytes of a sealed text. @throws SealedValueInvalid when it is none */
export function fromText(place: Place, text: string): Buffer {
  if (!isSealedText(text)) throw new SealedValueInvalid(place, "is not sealed");
  const bytes = Buffer.from(text.slice(MARK.length), "base64");
  // Node skips what is no base64: of two spellings of one value only ours is taken.
  if (toText(bytes) !== text) throw new SealedValueInvalid(place, "was altered");
  return bytes;
}

const boundTo = (keyId: string, place: Place): Buffer =>
  Buffer.from(JSON.stringify(["holdfast", VERSION, keyId, ...place]));

// A sealed value can be read by whoever has its key, in the place that it was written for, and changed by nobody: what
// was altered, moved to another row or column, or put there unsealed is refused. AES-256-GCM of node:crypto.
//   version (1) | id of the key (16) | iv (12, random) | ciphertext | tag (16)
// The ciphertext holds one byte that says whether what follows is compressed: sealed data cannot be compressed later.
import { createCipheriv, createDecipheriv, randomFillSync } from "node:crypto";
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

export function seal(key: DataKey, place: Place, value: Uint8Array): Buffer {
  const isLong = value.length >= COMPRESSED_FROM;
  const content = isLong ? zstdCompressSync(value, FAST) : value;
  // One buffer, filled in place: a state is many small values, and each call into the cipher costs more than its bytes.
  const plain = Buffer.allocUnsafe(1 + content.length);
  plain.writeUInt8(isLong ? 1 : 0);
  plain.set(content, 1);
  const end = IV_END + plain.length;
  const sealed = Buffer.allocUnsafe(end + TAG);
  sealed.writeUInt8(VERSION);
  uuidBytes(key.id).copy(sealed, 1);
  nextIv().copy(sealed, ID_END);
  const cipher = createCipheriv(CIPHER, key.secret, sealed.subarray(ID_END, IV_END));
  cipher.setAAD(boundTo(key.id, place)).update(plain).copy(sealed, IV_END);
  cipher.final();
  cipher.getAuthTag().copy(sealed, end);
  return sealed;
}

const IV_BYTES = 12;
const ivs = Buffer.alloc(IV_BYTES * 256);
let ivsUsed = ivs.length;

/** Random bytes that are used once; asked for many at a time, as asking costs more than they do. */
function nextIv(): Buffer {
  if (ivsUsed === ivs.length) {
    randomFillSync(ivs);
    ivsUsed = 0;
  }
  ivsUsed += IV_BYTES;
  return ivs.subarray(ivsUsed - IV_BYTES, ivsUsed);
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

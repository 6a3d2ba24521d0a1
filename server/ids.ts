// Ids we make: UUIDv7 (sorts by time); UUIDv5 where an id must be the same on every instance.
import { createHash, randomBytes } from "node:crypto";

const ASSISTANT_NAMESPACE = Buffer.from("6ba7b8219dad11d180b400c04fd430c8", "hex");
const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/i;

export const isUuid = (text: string): boolean => UUID.test(text);

/** RFC 9562 version 7: 48 bits of milliseconds, then random bits. */
export function uuidv7(): string {
  const bytes = randomBytes(16);
  bytes.writeUIntBE(Date.now(), 0, 6);
  return format(bytes, 7);
}

/** The id of a graph's system assistant, as the official servers derive it. */
export function assistantIdOf(graphId: string): string {
  const hash = createHash("sha1").update(ASSISTANT_NAMESPACE).update(graphId).digest();
  return format(hash.subarray(0, 16), 5);
}

/** The 16 bytes of a UUID. */
export const uuidBytes = (uuid: string): Buffer => Buffer.from(uuid.replaceAll("-", ""), "hex");

/** The UUID that 16 bytes are. */
export const uuidOf = (bytes: Uint8Array): string => dashed(Buffer.from(bytes).toString("hex"));

function format(bytes: Buffer, version: number): string {
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | (version << 4), 6);
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8);
  return dashed(bytes.toString("hex"));
}

function dashed(hex: string): string {
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

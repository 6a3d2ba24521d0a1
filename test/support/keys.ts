// Keys for tests. With TEST_SEALED=1 every database and server of the suite is sealed with them.
import { KeyRing } from "../../server/privacy/key-ring.ts";
import { Seals } from "../../server/storage/keys/seals.ts";

export const TEST_KEYS = `test:${Buffer.alloc(32, 7).toString("base64")}`;

/** Keys of the whole suite; none unless it is run sealed. */
export const suiteKeys = process.env["TEST_SEALED"] === "1" ? TEST_KEYS : undefined;

export const sealsOf = (keys: string | undefined): Seals =>
  new Seals(keys === undefined ? undefined : new KeyRing(keys));

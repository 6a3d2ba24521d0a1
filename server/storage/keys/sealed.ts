// What is sealed: the one list of columns, and how their values are sealed when they are written and opened when they
// are read. With keys nothing else is taken for a value than what was sealed for that very place.
import { SealedValueInvalid } from "../../errors.ts";
import { fromText, isSealedText, keyIdOf, seal, toText, unseal } from "../../privacy/seal.ts";
import type { DataKey, Place } from "../../privacy/seal.ts";
import type { Queryable } from "../database.ts";

/** In which form a column keeps sealed values: bytes as they are; a text; a JSON text that is one string. */
type Form = "bytes" | "text" | "json";

interface SealedColumn {
  readonly schema: "holdfast" | "public";
  readonly form: Form;
  /** The columns that name a row. */
  readonly row: readonly string[];
  /** A value that says nothing and may stand there unsealed. */
  readonly blank?: string;
}

const [run, thread, item] = [["run_id"], ["thread_id"], ["path", "key"]];

/** Every column of the database that is sealed, as `table.column`. */
export const SEALED = {
  "runs.kwargs": { schema: "holdfast", form: "json", row: run },
  "runs.error": { schema: "holdfast", form: "json", row: run },
  "runs.auth": { schema: "holdfast", form: "json", row: run },
  "run_events.body": { schema: "holdfast", form: "text", row: ["run_id", "seq"] },
  "threads.config": { schema: "holdfast", form: "json", row: thread, blank: "{}" },
  "threads.state": { schema: "holdfast", form: "json", row: thread },
  "threads.error": { schema: "holdfast", form: "json", row: thread },
  "crons.payload": { schema: "holdfast", form: "json", row: ["cron_id"] },
  "crons.auth": { schema: "holdfast", form: "json", row: ["cron_id"] },
  "webhooks.payload": { schema: "holdfast", form: "json", row: ["webhook_id"], blank: "{}" },
  "store_items.value": { schema: "holdfast", form: "json", row: item },
  "store_vectors.coarse": { schema: "holdfast", form: "bytes", row: [...item, "embedder"] },
  "store_vectors.exact": { schema: "holdfast", form: "bytes", row: [...item, "embedder"] },
  "cache_entries.value": { schema: "holdfast", form: "bytes", row: ["tenant_id", "kind", "key"] },
  "vault_entries.value": { schema: "holdfast", form: "bytes", row: ["thread_id", "token", "kind"] },
  "checkpoint_blobs.blob": {
    schema: "public",
    form: "bytes",
    row: ["thread_id", "checkpoint_ns", "channel", "version", "type"],
  },
  "checkpoint_writes.blob": {
    schema: "public",
    form: "bytes",
    row: ["thread_id", "checkpoint_ns", "checkpoint_id", "task_id", "idx", "channel", "type"],
  },
} as const satisfies Record<string, SealedColumn>;

export type SealedName = keyof typeof SEALED;

/** The place of a value. @param row the values of the columns that name the row, in the order of SEALED */
export function placeOf(name: SealedName, row: readonly (string | number)[]): Place {
  const [table = "", column = ""] = name.split(".");
  return [table, column, ...row.map(String)];
}

/** @param key undefined: nothing is sealed here, and the value stays as it is */
export const sealBytes = (key: DataKey | undefined, place: Place, bytes: Uint8Array): Uint8Array =>
  key ? seal(key, place, bytes) : bytes;

export const sealText = (key: DataKey | undefined, place: Place, text: string): string =>
  key ? toText(seal(key, place, Buffer.from(text))) : text;

/** A JSON text as one. */
export const sealJson = (key: DataKey | undefined, place: Place, json: string): string =>
  key ? `"${toText(seal(key, place, Buffer.from(json)))}"` : json;

/** One column of a row that was read: in which form it came, and where it stands in the database. */
export interface Reading<Row> {
  readonly name: SealedName;
  /** `json`: parsed by the driver. `json text`: as a text. */
  readonly as: "bytes" | "text" | "json" | "json text";
  readonly row: (row: Row) => readonly (string | number)[];
}

export type Readings<Row> = { readonly [Column in keyof Row & string]?: Reading<Row> };

/**
 * The rows with their sealed columns opened; a column that is null stays null.
 * @throws SealedValueInvalid, DataKeyUnusable
 */
export async function openRows<Row extends object>(
  on: Queryable,
  rows: Row[],
  readings: Readings<Row>,
): Promise<Row[]> {
  const sealed = rows.map((row) => sealedOf(on, row, readings));
  const ids = new Set(sealed.flatMap((found) => found.map(({ keyId }) => keyId)));
  if (ids.size === 0) return rows;
  const keys = await on.seals.keys(on, [...ids]);
  return rows.map((row, index) => {
    const opened: Record<string, unknown> = {};
    for (const { column, as, place, bytes, keyId } of sealed[index] ?? []) {
      const key = keys.get(keyId);
      if (!key) throw new SealedValueInvalid(place, "names a key that is not there");
      const value = unseal(key, place, bytes);
      opened[column] =
        as === "bytes" ? value : as === "json" ? JSON.parse(value.toString()) : value.toString();
    }
    return { ...row, ...opened };
  });
}

interface Found {
  readonly column: string;
  readonly as: Reading<never>["as"];
  readonly place: Place;
  readonly bytes: Uint8Array;
  readonly keyId: string;
}

function sealedOf<Row extends object>(on: Queryable, row: Row, readings: Readings<Row>): Found[] {
  const found: Found[] = [];
  for (const [column, reading] of Object.entries<Reading<Row> | undefined>(readings)) {
    const value: unknown = Reflect.get(row, column);
    if (!reading || value === null || value === undefined) continue;
    const { as } = reading;
    const { blank }: SealedColumn = SEALED[reading.name];
    if (blank !== undefined && as === "json" && JSON.stringify(value) === blank) continue;
    if (!on.seals.isOn && !looksSealed(value, as)) continue;
    const place = placeOf(reading.name, reading.row(row));
    const bytes = bytesOf(place, value, as);
    found.push({ column, as, place, bytes, keyId: keyIdOf(place, bytes) });
  }
  return found;
}

/** Whether it can only be a sealed value: none of ours is a JSON string, and no line of a log begins as one. */
function looksSealed(value: unknown, as: Reading<never>["as"]): boolean {
  if (as === "json") return typeof value === "string";
  if (as === "json text") return typeof value === "string" && value.startsWith('"');
  return as === "text" && typeof value === "string" && isSealedText(value);
}

function bytesOf(place: Place, value: unknown, as: Reading<never>["as"]): Uint8Array {
  if (as === "bytes") {
    if (value instanceof Uint8Array) return value;
  } else if (typeof value === "string") {
    const isQuoted = as === "json text" && value.startsWith('"');
    return fromText(place, isQuoted ? value.slice(1, -1) : value);
  }
  throw new SealedValueInvalid(place, "is not sealed");
}

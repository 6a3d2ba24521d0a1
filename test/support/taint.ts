// Values of every kind that must never be kept, each with a core that stands nowhere else, and a search for those cores
// in whatever form bytes may have them.
import { readFile, readdir } from "node:fs/promises";
import { join } from "node:path";
import { LineReader } from "../../server/runs/log/line-reader.ts";
import type { Template } from "../../server/runs/log/lines.ts";
import type { Database } from "../../server/storage/database.ts";

export interface Taint {
  readonly value: string;
  /** A part of it by which even half of it is found. */
  readonly core: string;
}

const digits = (n: number, length: number): string => String(n).padStart(length, "0");

/** The number that makes the sum of Luhn right. */
function luhn(body: string): string {
  const sum = body
    .split("")
    .toReversed()
    .map((digit, index) => Number(digit) * (index % 2 === 0 ? 2 : 1))
    .reduce((total, value) => total + (value > 9 ? value - 9 : value), 0);
  return body + String((10 - (sum % 10)) % 10);
}

/** The numbers that make the rest of 97 right. */
function iban(account: string): string {
  const rest = `${account}131400`
    .split("")
    .reduce((remainder, digit) => (remainder * 10 + Number(digit)) % 97, 0);
  return `DE${digits(98 - rest, 2)}${account}`;
}

const KINDS: readonly ((n: number) => Taint)[] = [
  (n) => ({ value: `zq7k${digits(n, 5)}mxw@example.org`, core: `zq7k${digits(n, 5)}mxw` }),
  (n) => ({
    value: `+1 415 7${digits(n % 100, 2)} ${digits(7000 + n, 4)}`,
    core: `415 7${digits(n % 100, 2)} ${digits(7000 + n, 4)}`,
  }),
  (n) => {
    const card = luhn(`45321${digits(n, 5)}78901`);
    return { value: card, core: card };
  },
  (n) => ({ value: `sk-zq7kTaint${digits(n, 5)}AbCdEfGhIjKlMnOp`, core: `Taint${digits(n, 5)}AbCd` }),
  (n) => {
    const account = `37040044${digits(n, 10)}`;
    return { value: iban(account), core: account };
  },
  (n) => {
    const number = `2${digits(n % 100, 2)}-${digits(10 + (n % 89), 2)}-${digits(2000 + n, 4)}`;
    return { value: number, core: number };
  },
  (n) => {
    const address = `198.${18 + (n % 2)}.${Math.floor(n / 200)}.${n % 200}`;
    return { value: address, core: address };
  },
  (n) => {
    const address = `02:42:ac:7e:${digits(Math.floor(n / 100), 2)}:${digits(n % 100, 2)}`;
    return { value: address, core: address };
  },
  (n) => ({ value: `password=zq7kPw${digits(n, 5)}Secret`, core: `zq7kPw${digits(n, 5)}` }),
];

let count = 0;

/** New values each time: so many of each kind. */
export function taintsOfEachKind(each = 1): Taint[] {
  return Array.from({ length: each }, () => {
    count += 1;
    return KINDS.map((make, index) => make(count * KINDS.length + index));
  }).flat();
}

/** A core in every form in which bytes or text may hold it. */
function formsOf(core: string): Buffer[] {
  const plain = Buffer.from(core, "utf8");
  const aligned = [0, 1, 2].map((shift) => {
    const text = Buffer.concat([Buffer.alloc(shift), plain]).toString("base64");
    // Its first and last characters depend on what stands beside it.
    return Buffer.from(text.slice(shift === 0 ? 0 : shift + 1, -4));
  });
  return [
    plain,
    Buffer.from(core, "utf16le"),
    Buffer.from(plain.toString("hex")),
    Buffer.from(encodeURIComponent(core)),
    ...aligned,
  ];
}

/** Cores that stand in the bytes. */
export function findIn(bytes: Uint8Array, taints: readonly Taint[]): string[] {
  const all = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return taints
    .filter(({ core }) => formsOf(core).some((form) => all.includes(form)))
    .map(({ core }) => core);
}

/** Every row of every table, as text: bytes stand in hexadecimal. */
export async function dumpOf(database: Database): Promise<string> {
  const tables = await database.query<{ name: string }>(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables
      where schemaname not in ('pg_catalog', 'information_schema')`,
  );
  const parts: string[] = [];
  for (const { name } of tables) {
    const rows = await database.query<{ row: string }>(`select t::text as row from ${name} t`);
    parts.push(name, ...rows.map(({ row }) => row));
  }
  return parts.join("\n");
}

/** Texts that stand in the same place of one document after the other, each place put together. */
class Places {
  readonly #texts = new Map<string, string[]>();

  add(place: string, text: string): void {
    const texts = this.#texts.get(place);
    if (texts) texts.push(text);
    else this.#texts.set(place, [text]);
  }

  walk(place: string, value: unknown): void {
    if (typeof value === "string") this.add(place, value);
    if (typeof value !== "object" || value === null) return;
    for (const [key, item] of Object.entries(value)) this.walk(`${place}.${key}`, item);
  }

  all(): string {
    return [...this.#texts.values()].map((texts) => texts.join("")).join("\n");
  }
}

/** What the logs of all runs tell, with what was told in pieces put together: a value told letter by letter stands there. */
export async function toldOf(database: Database): Promise<string> {
  const rows = await database.query<{ run_id: string; seq: number; body: string }>(
    "select run_id, seq, body from holdfast.run_events order by run_id, seq",
  );
  const places = new Places();
  for (const [run, segments] of Map.groupBy(rows, (row) => row.run_id)) {
    const reader = new LineReader(async (seq) => segments.findLast((row) => row.seq <= seq));
    const templates = new Map<Template, number>();
    for (const { seq, body } of segments) {
      for await (const events of reader.read(seq, body)) {
        for (const { entry } of events) {
          if (!("template" in entry)) {
            places.walk(`${run} ${entry.event}`, JSON.parse(entry.data));
            continue;
          }
          const id = templates.get(entry.template) ?? templates.size;
          templates.set(entry.template, id);
          const added = "added" in entry ? entry.added : undefined;
          places.add(`${run} ${id}`, added ?? String(JSON.parse(entry.text)));
        }
      }
    }
  }
  return places.all();
}

/** The same for what clients were told. */
export function seenOf(streams: readonly (readonly unknown[])[]): string {
  const places = new Places();
  for (const [index, frames] of streams.entries()) {
    for (const frame of frames) {
      const { event, method } = Object(frame) as { event?: string; method?: string };
      places.walk(`${index} ${event ?? method}`, frame);
    }
  }
  return places.all();
}

/** Every file below a folder in which one of the cores stands, with which. */
export async function searchFolder(folder: string, taints: readonly Taint[]): Promise<string[]> {
  const files = await readdir(folder, { recursive: true, withFileTypes: true });
  const found: string[] = [];
  for (const file of files) {
    if (!file.isFile()) continue;
    const path = join(file.parentPath, file.name);
    // A file may go while the database works.
    const bytes = await readFile(path).catch(() => Buffer.alloc(0));
    found.push(...findIn(bytes, taints).map((core) => `${path}: ${core}`));
  }
  return found;
}

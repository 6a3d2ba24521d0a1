// holdfast keys: makes keys, says which are in use, wraps data keys anew, seals what is there, shreds.
import { appendFile, chmod, open, readFile } from "node:fs/promises";
import type { Config } from "../config.ts";
import { ConfigInvalid, messageOf } from "../errors.ts";
import { newKeyLine } from "../privacy/key-ring.ts";
import { insertAudit } from "../storage/audit.ts";
import type { Database } from "../storage/database.ts";
import { countByKek } from "../storage/keys/data-keys.ts";
import { rotate } from "../storage/keys/rotate.ts";
import { sealExisting } from "../storage/keys/seal-existing.ts";
import { countLive, missingKeks, requireKeks, sealingOf } from "../storage/keys/sealing.ts";
import { shredNamespace, shredTenant, shredThread } from "../storage/keys/shred.ts";
import type { Shredded } from "../storage/keys/shred.ts";
import { defaultScope } from "../storage/scope.ts";
import { withDatabase } from "./database.ts";

type Say = (text: string) => void;

const SEALING_MS = 12 * 3_600_000;

interface Asked {
  readonly json?: boolean;
  readonly say: Say;
}

/** Prints a new key as a line for the ring, or puts it at the end of a file that only its owner may read. */
export async function makeKey(options: { name: string; file?: string; say: Say }): Promise<number> {
  const { name, file, say } = options;
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(name)) {
    say("The name of a key is made of at most 64 letters, digits, dots and dashes.");
    return 2;
  }
  const line = newKeyLine(name);
  if (file === undefined) {
    say(line);
    return 0;
  }
  if (file === "") {
    say("--file names no file. Give it a path, or leave it out to see the key here.");
    return 2;
  }
  const before = await ownFile(file);
  if (before.split("\n").some((one) => one.trim().startsWith(`${name}:`))) {
    say(`${file} holds a key ${name} already. Give the new one another name: --name.`);
    return 2;
  }
  const isWhole = before === "" || before.endsWith("\n");
  await appendFile(file, isWhole ? `${line}\n` : `\n${line}\n`);
  const next =
    before === ""
      ? "Set HOLDFAST_KEYS_FILE to it on every server, and keep a copy where no database backup is: without it nothing that is sealed can be read."
      : "It opens from the next start of each server on. When all have it, make it the first line, start them again, and run holdfast keys rotate.";
  say(`The key ${name} is in ${file}. ${next}`);
  return 0;
}

/** What a file holds that only its owner may read; made if it is not there. */
async function ownFile(file: string): Promise<string> {
  try {
    await (await open(file, "a", 0o600)).close();
    const held = await readFile(file, "utf8");
    await chmod(file, 0o600);
    return held;
  } catch (error) {
    throw new ConfigInvalid(`${file} cannot be written: ${messageOf(error)}.`, { cause: error });
  }
}

/** @returns the exit code: 0, or 3 when what is stored cannot all be read with these keys */
export const showKeys = (config: Config, { json = false, say }: Asked): Promise<number> =>
  withDatabase(config, async (database) => {
    const sealing = await sealingOf(database);
    const used = await countByKek(database);
    const names: readonly string[] = database.seals.isOn ? database.seals.ring.names : [];
    const missing = (await missingKeks(database)).map(({ kek_id: kek }) => kek);
    const isFine = missing.length === 0 && sealing !== "begun";
    if (json) say(JSON.stringify({ ok: isFine, sealing, current: names[0] ?? null, names, used, missing }));
    else {
      say(
        `Sealing: ${sealing}${sealing === "begun" ? "; run holdfast keys seal with all servers stopped" : ""}`,
      );
      for (const [index, name] of names.entries()) {
        const keys = used.find(({ kek_id: kek }) => kek === name)?.keys ?? 0;
        say(`${name}: wraps ${keys} data keys${index === 0 ? " and all new ones" : ""}`);
      }
      for (const name of missing) say(`MISSING ${name}: what its data keys seal cannot be read without it`);
    }
    return isFine ? 0 : 3;
  });

/** @returns the exit code: 0 */
export const rotateKeys = (config: Config, { json = false, say }: Asked): Promise<number> =>
  withKeys(config, async (database) => {
    await requireKeks(database);
    const keys = await rotate(database, (done) => {
      if (!json) say(`${done} data keys`);
    });
    const { current, names } = database.seals.ring;
    const others = names.filter((name) => name !== current).join(", ");
    if (json) say(JSON.stringify({ rotated: keys, current }));
    else
      say(
        `Wrapped ${keys} data keys with ${current}.${others ? ` Nothing needs ${others} any more but backups made before now.` : ""}`,
      );
    return 0;
  });

/** Seals what a database holds already. @returns the exit code: 0, or 3 while servers run */
export const sealAll = (config: Config, { json = false, say }: Asked): Promise<number> =>
  // Tables are written anew, each by one statement, and nobody waits for them.
  withKeys({ ...config, statementTimeoutMs: SEALING_MS }, async (database) => {
    if ((await sealingOf(database)) === "on") {
      say(json ? JSON.stringify({ sealing: "on" }) : "This database is sealed already.");
      return 0;
    }
    if ((await countLive(database)) > 0) return refuseLive(say);
    await requireKeks(database);
    const tell = (text: string): void => void (json || say(text));
    await sealExisting(
      database,
      ({ threads, namespaces }) => tell(`To seal: ${threads} threads, ${namespaces} namespaces of the store`),
      { onTable: (table) => tell(`Writing ${table} anew`) },
    );
    await insertAudit(database, {
      actorKind: "command",
      action: "database.sealed",
      object: "database",
      outcome: "done",
    });
    say(json ? JSON.stringify({ sealing: "on" }) : "Sealed. From now on the database refuses what is not.");
    return 0;
  });

type Subject = "thread" | "namespace" | "tenant";

/**
 * @param name the id of a thread, labels divided by dots, or a tenant
 * @returns the exit code: 0, 2 when it was not confirmed, 3 when nothing was shredded
 */
export async function shredKeys(
  config: Config,
  options: Asked & { subject: Subject; name: string; yes?: boolean },
): Promise<number> {
  const { subject, name, yes = false, json = false, say } = options;
  if (subject === "tenant" && name !== defaultScope.tenantId) {
    say(`There is no tenant ${name}. The only one is ${defaultScope.tenantId}.`);
    return 2;
  }
  if (subject === "tenant" && !yes) {
    say("This deletes all threads, runs, crons, webhooks and items for good. Say --yes to do it.");
    return 2;
  }
  return withDatabase(config, async (database) => {
    if (subject === "tenant" && (await countLive(database)) > 0) return refuseLive(say);
    const done = await shred(database, subject, name);
    if (typeof done === "string") {
      say(
        done === "live"
          ? `A run on thread ${name} has not ended. Cancel it, or wait, and shred then.`
          : `There is no ${subject} ${name}.`,
      );
      return 3;
    }
    if (json) say(JSON.stringify({ shredded: { subject, name }, keys: done.keys }));
    else
      say(
        `Shredded ${subject} ${name}: ${done.keys} data keys are gone. Copies of the database made before hold them still: see docs/sealing.md.`,
      );
    return 0;
  });
}

function shred(database: Database, subject: Subject, name: string): Promise<Shredded | "live" | "missing"> {
  if (subject === "thread") return shredThread(database, name);
  const { tenantId } = defaultScope;
  return subject === "tenant"
    ? shredTenant(database, tenantId)
    : shredNamespace(database, name.split("."), tenantId);
}

function refuseLive(say: Say): number {
  say("Servers are running on this database. Stop all of them first; one that died counts for 15 s.");
  return 3;
}

function withKeys(config: Config, work: (database: Database) => Promise<number>): Promise<number> {
  if (config.keys === undefined)
    throw new ConfigInvalid(
      "Set HOLDFAST_KEYS_FILE to the file with the keys first; holdfast keys new makes one.",
    );
  return withDatabase(config, work);
}

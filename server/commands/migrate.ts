// holdfast migrate: applies what is pending, or only says what is.
import type { Config } from "../config.ts";
import { checkSchema } from "../storage/migrate.ts";
import { openDatabase } from "../storage/open.ts";

/** @returns the exit code: 0, or 3 when --check finds something pending */
export async function migrateDatabase(
  config: Config,
  options: { check?: boolean; json?: boolean; say: (text: string) => void },
): Promise<number> {
  const { check = false, json = false, say } = options;
  const { database, migrate, close } = await openDatabase(config, json ? undefined : say);
  try {
    if (check) {
      const { pending, current } = await checkSchema(database);
      const text =
        pending.length > 0 ? `Pending: ${pending.join(", ")}` : `The schema is up to date (${current}).`;
      say(json ? JSON.stringify({ pending, current }) : text);
      return pending.length > 0 ? 3 : 0;
    }
    const { applied, version } = await migrate();
    const text = applied.length > 0 ? `Applied ${applied.join(", ")}.` : "Nothing to apply.";
    say(json ? JSON.stringify({ applied, version }) : `${text} The schema is at ${version}.`);
    return 0;
  } finally {
    await close();
  }
}

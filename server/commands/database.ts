// A command's look at the database: opened, found to have the schema that this version knows, and closed again.
import type { Config } from "../config.ts";
import { ConfigInvalid } from "../errors.ts";
import type { Database } from "../storage/database.ts";
import { checkSchema } from "../storage/migrate.ts";
import { openDatabase } from "../storage/open.ts";

/**
 * @param say told of each slow step of opening it
 * @throws ConfigInvalid when its schema is another one
 */
export async function withDatabase<T>(
  config: Config,
  work: (database: Database) => Promise<T>,
  say?: (text: string) => void,
): Promise<T> {
  const { database, close } = await openDatabase(config, say);
  try {
    const { pending } = await checkSchema(database);
    if (pending.length > 0)
      throw new ConfigInvalid(
        `The schema is not up to date (${pending.join(", ")}): run holdfast migrate first.`,
      );
    return await work(database);
  } finally {
    await close();
  }
}

// A copy of the server's sources to start servers from: as they are now, whatever is edited meanwhile, or with a bug
// planted in them.
import { cp, mkdtemp, readFile, rm, symlink, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

export interface Replacement {
  /** Below server/. */
  readonly file: string;
  /** Must stand in the file exactly once. */
  readonly from: string;
  readonly to: string;
}

export interface Sources {
  readonly folder: string;
  /** The command line to start. */
  readonly cli: string;
  remove(): Promise<void>;
}

const ROOT = fileURLToPath(new URL("..", import.meta.url));

/** @throws when a replacement does not fit: the server has changed, and the bug has to be planted anew */
export async function copySources(replacements: readonly Replacement[] = []): Promise<Sources> {
  const folder = await mkdtemp(join(tmpdir(), "holdfast-crash-"));
  const remove = (): Promise<void> => rm(folder, { recursive: true, force: true });
  try {
    for (const name of ["server", "migrations", "package.json"]) {
      await cp(join(ROOT, name), join(folder, name), { recursive: true });
    }
    await symlink(join(ROOT, "node_modules"), join(folder, "node_modules"));
    for (const replacement of replacements) await replace(folder, replacement);
    return { folder, cli: join(folder, "server", "cli.ts"), remove };
  } catch (error) {
    await remove();
    throw error;
  }
}

async function replace(folder: string, { file, from, to }: Replacement): Promise<void> {
  const path = join(folder, "server", file);
  const text = await readFile(path, "utf8");
  const count = text.split(from).length - 1;
  if (count !== 1) throw new Error(`server/${file} holds ${count} times, not once: ${from}`);
  // A function, because a dollar sign means something in a replacement text.
  await writeFile(
    path,
    text.replace(from, () => to),
  );
}

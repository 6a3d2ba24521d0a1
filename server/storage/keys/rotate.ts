// Wraps the data keys anew with the first key of the ring. What they seal is not touched, and servers go on meanwhile:
// each data key can be opened before, during and after.
import { sleep } from "../../clock.ts";
import { insertAudit } from "../audit.ts";
import type { Database } from "../database.ts";
import { listWrappedByOthers, rewrapDataKeys } from "./data-keys.ts";
import { boundTo } from "./seals.ts";

const BATCH = 500;
const NIL = "00000000-0000-0000-0000-000000000000";
/** A key that somebody is about to delete is passed over; if he does not, it is found again. */
const AGAIN_MS = 100;

/**
 * @param onProgress told how many were wrapped so far
 * @returns how many were
 * @throws DataKeyUnusable for one that does not open; those before it stay as they are then
 */
export async function rotate(database: Database, onProgress: (done: number) => void): Promise<number> {
  const { ring } = database.seals;
  let [done, after, hasMissed] = [0, NIL, false];
  for (;;) {
    const rows = await listWrappedByOthers(database, ring.current, after, BATCH);
    const last = rows.at(-1);
    if (!last && !hasMissed) return done;
    if (!last) {
      await sleep(AGAIN_MS);
      [after, hasMissed] = [NIL, false];
      continue;
    }
    const again = rows.map((row) => {
      const secret = ring.unwrap(row.kek_id, row.wrapped, boundTo(row));
      return Object.assign({}, row, { wrapped: ring.wrap(secret, boundTo(row)) });
    });
    const changed = await database.transaction(async (transaction) => {
      const keys = await rewrapDataKeys(transaction, again, ring.current);
      if (keys === 0) return 0;
      await insertAudit(transaction, {
        actorKind: "command",
        action: "keys.rotated",
        object: `kek:${ring.current}`,
        outcome: "done",
        detail: { keys },
      });
      return keys;
    });
    done += changed;
    hasMissed ||= changed < rows.length;
    after = last.data_key_id;
    onProgress(done);
  }
}

// What a statement reads: which indexes it looks into, and how many blocks it touches.
import { escapeLiteral } from "pg";
import { expect } from "vitest";
import type { Database } from "../../server/storage/database.ts";

export interface Plan {
  readonly "Node Type": string;
  readonly "Relation Name"?: string;
  readonly "Index Name"?: string;
  readonly "Index Cond"?: string;
  readonly "Actual Loops": number;
  readonly "Shared Hit Blocks": number;
  readonly "Shared Read Blocks": number;
  readonly Plans?: readonly Plan[];
}

export type Parameter = string | number | boolean | null | undefined | Buffer | readonly (string | number)[];

/** Executes the statement, takes its changes back, and says what it did. */
export async function explain(
  database: Database,
  statement: string,
  values: readonly Parameter[],
  mode: "force_custom_plan" | "force_generic_plan" = "force_custom_plan",
): Promise<{ nodes: Plan[]; blocks: number }> {
  const undo = new Error("taken back");
  const plans: Plan[] = [];
  const doing = database.transaction(async (transaction) => {
    await transaction.query(`set local plan_cache_mode = ${mode}`);
    await transaction.query(`prepare explained as ${statement}`);
    const given = values.length > 0 ? ` (${values.map(literal).join(", ")})` : "";
    const text = `explain (analyze, buffers, costs off, format json) execute explained${given}`;
    const [row] = await transaction.query<{ "QUERY PLAN": [{ Plan: Plan }] }>(text);
    await transaction.query("deallocate explained");
    plans.push(...(row?.["QUERY PLAN"].map(({ Plan: plan }) => plan) ?? []));
    throw undo;
  });
  await expect(doing).rejects.toBe(undo);
  const nodes = plans.flatMap(flat);
  const blocks = plans[0] ? plans[0]["Shared Hit Blocks"] + plans[0]["Shared Read Blocks"] : Infinity;
  return { nodes, blocks };
}

function literal(value: Parameter): string {
  if (value === null || value === undefined) return "null";
  if (Buffer.isBuffer(value)) return `'\\x${value.toString("hex")}'`;
  return escapeLiteral(typeof value === "object" ? `{${value.join(",")}}` : String(value));
}

const flat = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(flat)];

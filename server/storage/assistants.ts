// Rows of holdfast.assistants. Each graph has one system assistant with the same id on every instance.
import type { Queryable } from "./database.ts";

export interface AssistantRow {
  readonly assistant_id: string;
  readonly graph_id: string;
  readonly name: string;
  readonly description: string | null;
  readonly version: number;
  readonly config: Record<string, unknown>;
  readonly context: Record<string, unknown>;
  readonly metadata: Record<string, unknown>;
  readonly created_at: Date;
  readonly updated_at: Date;
}

const upsertSystemRows = `/* upsertSystemAssistants */
insert into holdfast.assistants as a (assistant_id, graph_id, name, metadata)
select n.assistant_id, n.graph_id, n.graph_id, '{"created_by": "system"}' from unnest($1::uuid[], $2::text[]) as n (assistant_id, graph_id)
on conflict (assistant_id) do update set graph_id = a.graph_id
returning assistant_id, graph_id, name, description, version, config, context, metadata, created_at, updated_at`;

/** Makes the system assistants that are missing and returns all of them. */
export const upsertSystemAssistants = (
  on: Queryable,
  assistants: readonly { assistantId: string; graphId: string }[],
): Promise<AssistantRow[]> =>
  on.query(upsertSystemRows, [
    assistants.map(({ assistantId }) => assistantId),
    assistants.map(({ graphId }) => graphId),
  ]);

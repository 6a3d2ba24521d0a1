-- breaking: no
-- Assistants that clients make, change and delete: all versions of each, and the order in which a search lists them.
-- There are few of them, and who starts a run reads none: nobody waits for the indexes.
-- squawk-ignore-file require-concurrent-index-creation
set local lock_timeout = '10s';
set local statement_timeout = '10min';

-- What the row says has this name: each change gives it a new one, so that a server can ask whether what it remembers
-- is still true. The version is no such name, since it goes back, and begins again when an id is used again.
-- squawk-ignore adding-field-with-default
alter table holdfast.assistants add column revision uuid not null default gen_random_uuid();

-- A version is never changed: going back to one brings all of it back.
create table holdfast.assistant_versions (
  assistant_id uuid not null references holdfast.assistants on delete cascade,
  version integer not null,
  graph_id text not null,
  name text not null,
  description text,
  config jsonb not null,
  context jsonb not null,
  metadata jsonb not null,
  created_at timestamptz not null default now(),
  constraint assistant_versions_key primary key (assistant_id, version)
);
insert into holdfast.assistant_versions
  (assistant_id, version, graph_id, name, description, config, context, metadata, created_at)
select assistant_id, version, graph_id, name, description, config, context, metadata, updated_at from holdfast.assistants;

create index assistants_by_creation on holdfast.assistants (created_at, assistant_id);
create index assistants_by_update on holdfast.assistants (updated_at, assistant_id);
create index assistants_by_name on holdfast.assistants (name, assistant_id);
create index assistants_by_graph on holdfast.assistants (graph_id, assistant_id);
create index assistants_metadata on holdfast.assistants using gin (metadata jsonb_path_ops);

-- A run keeps what it needs of its assistant, and outlives it.
alter table holdfast.runs drop constraint runs_assistant_id_fkey;
-- Workers claim by the graph that a run was accepted for. Told how often each comes, PostgreSQL reads a long queue from
-- its front instead of sorting all of it.
create statistics holdfast.runs_graph on (metadata ->> 'graph_id') from holdfast.runs;

-- What all migrations add up to, for review: a change here that nobody meant is a fault.
-- Written by a test. To write it anew: npx vitest run test/storage/migrate.test.ts -u
-- 0001_checkpoints (breaking: no)
-- 0002_threads_and_runs (breaking: no)
-- 0003_documents (breaking: no)
-- 0004_run_engine (breaking: yes)
-- 0005_crons (breaking: no)
-- 0006_assistants (breaking: no)
-- 0007_thread_search (breaking: no)
-- 0008_store (breaking: no)
-- 0009_compression (breaking: no)
-- 0010_protocol (breaking: no)
-- 0011_auth (breaking: no)
-- 0012_store_vectors (breaking: no)
-- 0013_boot_attempt (breaking: no)
-- 0014_sealing (breaking: no)
-- 0015_audit (breaking: no)
-- 0016_vault (breaking: no)

create table holdfast.assistant_versions (
  assistant_id uuid not null,
  version integer not null,
  graph_id text not null,
  name text not null,
  description text,
  config jsonb not null,
  context jsonb not null,
  metadata jsonb not null,
  created_at timestamp with time zone default now() not null,
  constraint assistant_versions_assistant_id_fkey FOREIGN KEY (assistant_id) REFERENCES holdfast.assistants(assistant_id) ON DELETE CASCADE,
  constraint assistant_versions_key PRIMARY KEY (assistant_id, version)
);

create table holdfast.assistants (
  assistant_id uuid not null,
  graph_id text not null,
  name text not null,
  description text,
  version integer default 1 not null,
  config jsonb default '{}'::jsonb not null,
  context jsonb default '{}'::jsonb not null,
  metadata jsonb default '{}'::jsonb not null,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  revision uuid default gen_random_uuid() not null,
  constraint assistants_pkey PRIMARY KEY (assistant_id)
);

create table holdfast.audit_entries (
  entry_id uuid not null,
  tenant_id text not null,
  at timestamp with time zone default now() not null,
  actor_kind text not null,
  actor_hash text,
  action text not null,
  object text not null,
  outcome text not null,
  detail jsonb default '{}'::jsonb not null,
  constraint audit_entries_actor_kind CHECK ((actor_kind = ANY (ARRAY['command'::text, 'caller'::text, 'server'::text]))),
  constraint audit_entries_pkey PRIMARY KEY (entry_id)
);

create table holdfast.audit_links (
  seq bigint not null,
  entry_id uuid not null,
  prev_hash bytea,
  hash bytea not null,
  constraint audit_links_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES holdfast.audit_entries(entry_id),
  constraint audit_links_entry_id_key UNIQUE (entry_id),
  constraint audit_links_hash_key UNIQUE (hash),
  constraint audit_links_pkey PRIMARY KEY (seq),
  constraint audit_links_prev_hash_key UNIQUE NULLS NOT DISTINCT (prev_hash),
  constraint audit_links_seq CHECK ((seq > 0))
);

create table holdfast.audit_unlinked (
  entry_id uuid not null,
  constraint audit_unlinked_entry_id_fkey FOREIGN KEY (entry_id) REFERENCES holdfast.audit_entries(entry_id),
  constraint audit_unlinked_pkey PRIMARY KEY (entry_id)
);

create table holdfast.chunks (
  chunk_id bigint generated always as identity not null,
  tenant_id text not null,
  collection_id bigint not null,
  document_id bigint not null,
  ordinal integer not null,
  body text not null,
  length integer not null,
  constraint chunks_document_id_fkey FOREIGN KEY (document_id) REFERENCES holdfast.documents(document_id) ON DELETE CASCADE,
  constraint chunks_document_id_ordinal_key UNIQUE (document_id, ordinal),
  constraint chunks_pkey PRIMARY KEY (chunk_id)
);

create table holdfast.collections (
  collection_id bigint generated always as identity not null,
  tenant_id text not null,
  name text not null,
  language text not null,
  documents bigint default 0 not null,
  chunks bigint default 0 not null,
  lexemes bigint default 0 not null,
  revision bigint default 0 not null,
  created_at timestamp with time zone default now() not null,
  constraint collections_pkey PRIMARY KEY (collection_id),
  constraint collections_tenant_id_name_key UNIQUE (tenant_id, name)
);

create table holdfast.crons (
  cron_id uuid not null,
  assistant_id uuid not null,
  thread_id text,
  schedule text not null,
  timezone text,
  end_time timestamp with time zone,
  on_run_completed text default 'delete'::text not null,
  is_enabled boolean default true not null,
  payload json not null,
  metadata jsonb default '{}'::jsonb not null,
  next_run_at timestamp with time zone,
  claimed_until timestamp with time zone,
  error text,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  auth json,
  constraint crons_assistant_id_fkey FOREIGN KEY (assistant_id) REFERENCES holdfast.assistants(assistant_id) ON DELETE CASCADE,
  constraint crons_on_run_completed CHECK ((on_run_completed = ANY (ARRAY['delete'::text, 'keep'::text]))),
  constraint crons_pkey PRIMARY KEY (cron_id),
  constraint crons_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES holdfast.threads(thread_id) ON DELETE CASCADE
);

create table holdfast.data_keys (
  data_key_id uuid not null,
  tenant_id text not null,
  thread_id text,
  path text collate "C",
  kek_id text not null,
  wrapped bytea not null,
  created_at timestamp with time zone default now() not null,
  constraint data_keys_pkey PRIMARY KEY (data_key_id),
  constraint data_keys_subject CHECK ((num_nonnulls(thread_id, path) <= 1)),
  constraint data_keys_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES holdfast.threads(thread_id) ON DELETE CASCADE
);

create table holdfast.documents (
  document_id bigint generated always as identity not null,
  tenant_id text not null,
  collection_id bigint not null,
  file text collate "C" not null,
  record text collate "C" not null,
  source_id text not null,
  title text not null,
  sha256 bytea not null,
  created_at timestamp with time zone default now() not null,
  constraint documents_collection_id_file_record_key UNIQUE (collection_id, file, record),
  constraint documents_collection_id_fkey FOREIGN KEY (collection_id) REFERENCES holdfast.collections(collection_id) ON DELETE CASCADE,
  constraint documents_pkey PRIMARY KEY (document_id)
);

create table holdfast.instances (
  worker_id uuid not null,
  started_at timestamp with time zone default now() not null,
  beat_at timestamp with time zone default now() not null,
  is_draining boolean default false not null,
  has_lock boolean default true not null,
  constraint instances_pkey PRIMARY KEY (worker_id)
);

create table holdfast.migrations (
  version integer not null,
  name text not null,
  checksum text not null,
  breaking boolean not null,
  applied_at timestamp with time zone default now() not null,
  constraint migrations_pkey PRIMARY KEY (version)
);

create table holdfast.postings (
  collection_id bigint not null,
  lexeme text collate "C" not null,
  chunk_id bigint not null,
  tf real not null,
  length real not null
);

create table holdfast.run_events (
  run_id uuid not null,
  seq integer not null,
  last integer not null,
  attempt integer not null,
  body text not null,
  constraint run_events_key PRIMARY KEY (run_id, seq),
  constraint run_events_range CHECK (((last >= seq) AND (seq >= 0)))
);

create table holdfast.runs (
  run_id uuid not null,
  thread_id text not null,
  assistant_id uuid not null,
  ord bigint generated always as identity not null,
  state text not null,
  attempt integer default 0 not null,
  worker_id uuid,
  multitask text default 'reject'::text not null,
  metadata jsonb default '{}'::jsonb not null,
  kwargs json not null,
  error json,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  run_at timestamp with time zone default now() not null,
  handovers integer default 0 not null,
  cancel text,
  cancel_reason text,
  idem_key text,
  deadline timestamp with time zone,
  boot text,
  webhook text,
  segments integer default 0 not null,
  started_at timestamp with time zone,
  ended_at timestamp with time zone,
  ordinal integer,
  is_watched boolean default false not null,
  told_from integer default 0 not null,
  auth json,
  boot_attempt integer default 1 not null,
  constraint runs_cancel CHECK ((cancel = ANY (ARRAY['interrupt'::text, 'rollback'::text]))),
  constraint runs_pkey PRIMARY KEY (run_id),
  constraint runs_state CHECK ((state = ANY (ARRAY['delayed'::text, 'blocked'::text, 'ready'::text, 'running'::text, 'success'::text, 'error'::text, 'timeout'::text, 'interrupted'::text]))),
  constraint runs_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES holdfast.threads(thread_id) ON DELETE CASCADE
);

create table holdfast.store_items (
  path text collate "C" not null,
  key text collate "C" not null,
  namespace text[] generated always as (trim_array((string_to_array(path, '.'::text))[2:], 1)) stored not null,
  value jsonb not null,
  ttl_minutes double precision,
  expires_at timestamp with time zone,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  constraint store_items_path CHECK ((path ~ '^\.([^.]+\.)+$'::text)),
  constraint store_items_pkey PRIMARY KEY (path, key),
  constraint store_items_value CHECK ((jsonb_typeof(value) = ANY (ARRAY['object'::text, 'string'::text]))) NOT VALID
);

create table holdfast.store_vectors (
  path text collate "C" not null,
  key text collate "C" not null,
  embedder text not null,
  item_updated_at timestamp with time zone not null,
  coarse bytea not null,
  exact bytea not null,
  constraint store_vectors_path_key_fkey FOREIGN KEY (path, key) REFERENCES holdfast.store_items(path, key) ON DELETE CASCADE,
  constraint store_vectors_pkey PRIMARY KEY (path, key)
);

create table holdfast.terms (
  collection_id bigint not null,
  lexeme text collate "C" not null,
  df bigint not null,
  constraint terms_pkey PRIMARY KEY (collection_id, lexeme)
);

create table holdfast.threads (
  thread_id text not null,
  status text default 'idle'::text not null,
  metadata jsonb default '{}'::jsonb not null,
  config jsonb default '{}'::jsonb not null,
  error json,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  state_updated_at timestamp with time zone default now() not null,
  state json,
  resting text default 'idle'::text not null,
  has_waiting boolean default false not null,
  is_temporary boolean default false not null,
  ttl_minutes double precision,
  ttl_strategy text,
  expires_at timestamp with time zone,
  begun integer default 0 not null,
  data_key_id uuid,
  constraint threads_pkey PRIMARY KEY (thread_id),
  constraint threads_resting CHECK ((resting = ANY (ARRAY['idle'::text, 'interrupted'::text, 'error'::text]))),
  constraint threads_status CHECK ((status = ANY (ARRAY['idle'::text, 'busy'::text, 'interrupted'::text, 'error'::text]))),
  constraint threads_ttl_strategy CHECK ((ttl_strategy = ANY (ARRAY['delete'::text, 'keep_latest'::text])))
);

create table holdfast.vault_entries (
  token text collate "C" not null,
  thread_id text not null,
  kind text not null,
  value bytea not null,
  created_at timestamp with time zone default now() not null,
  constraint vault_entries_pkey PRIMARY KEY (token, thread_id),
  constraint vault_entries_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES holdfast.threads(thread_id) ON DELETE CASCADE
);

create table holdfast.watched_threads (
  thread_id text not null,
  created_at timestamp with time zone default now() not null,
  constraint watched_threads_key PRIMARY KEY (thread_id)
);

create table holdfast.webhooks (
  webhook_id uuid not null,
  run_id uuid not null,
  url text not null,
  payload json not null,
  state text default 'pending'::text not null,
  attempts integer default 0 not null,
  next_at timestamp with time zone default now() not null,
  error text,
  created_at timestamp with time zone default now() not null,
  ended_at timestamp with time zone,
  constraint webhooks_pkey PRIMARY KEY (webhook_id),
  constraint webhooks_state CHECK ((state = ANY (ARRAY['pending'::text, 'delivered'::text, 'parked'::text])))
);

create table public.checkpoint_blobs (
  thread_id text not null,
  checkpoint_ns text default ''::text not null,
  channel text not null,
  version text not null,
  type text not null,
  blob bytea,
  constraint checkpoint_blobs_pkey PRIMARY KEY (thread_id, checkpoint_ns, channel, version)
);

create table public.checkpoint_migrations (
  v integer not null,
  constraint checkpoint_migrations_pkey PRIMARY KEY (v)
);

create table public.checkpoint_writes (
  thread_id text not null,
  checkpoint_ns text default ''::text not null,
  checkpoint_id text not null,
  task_id text not null,
  idx integer not null,
  channel text not null,
  type text,
  blob bytea not null,
  task_path text default ''::text not null,
  run_id uuid,
  constraint checkpoint_writes_pkey PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);

create table public.checkpoints (
  thread_id text not null,
  checkpoint_ns text default ''::text not null,
  checkpoint_id text not null,
  parent_checkpoint_id text,
  type text,
  checkpoint jsonb not null,
  metadata jsonb default '{}'::jsonb not null,
  created_at timestamp with time zone default now() not null,
  constraint checkpoints_pkey PRIMARY KEY (thread_id, checkpoint_ns, checkpoint_id)
);

CREATE INDEX assistants_by_creation ON holdfast.assistants USING btree (created_at, assistant_id);

CREATE INDEX assistants_by_graph ON holdfast.assistants USING btree (graph_id, assistant_id);

CREATE INDEX assistants_by_name ON holdfast.assistants USING btree (name, assistant_id);

CREATE INDEX assistants_by_update ON holdfast.assistants USING btree (updated_at, assistant_id);

CREATE INDEX assistants_metadata ON holdfast.assistants USING gin (metadata jsonb_path_ops);

CREATE INDEX crons_due ON holdfast.crons USING btree (next_run_at) WHERE (is_enabled AND (next_run_at IS NOT NULL));

CREATE INDEX crons_of_assistant ON holdfast.crons USING btree (assistant_id);

CREATE INDEX crons_of_thread ON holdfast.crons USING btree (thread_id) WHERE (thread_id IS NOT NULL);

CREATE INDEX data_keys_by_kek ON holdfast.data_keys USING btree (kek_id, data_key_id);

CREATE INDEX data_keys_of_rest ON holdfast.data_keys USING btree (tenant_id, path, created_at) WHERE (thread_id IS NULL);

CREATE INDEX data_keys_of_thread ON holdfast.data_keys USING btree (thread_id) WHERE (thread_id IS NOT NULL);

CREATE INDEX postings_chunk ON holdfast.postings USING btree (chunk_id);

CREATE INDEX postings_lookup ON holdfast.postings USING btree (collection_id, lexeme) INCLUDE (chunk_id, tf, length);

CREATE INDEX runs_blocked ON holdfast.runs USING btree (thread_id, ord) WHERE (state = 'blocked'::text);

CREATE INDEX runs_delayed ON holdfast.runs USING btree (run_at) WHERE (state = 'delayed'::text);

CREATE INDEX runs_of_thread ON holdfast.runs USING btree (thread_id, ord);

CREATE INDEX runs_of_worker ON holdfast.runs USING btree (worker_id) WHERE (state = 'running'::text);

CREATE INDEX runs_ready ON holdfast.runs USING btree (run_at, ord) WHERE (state = 'ready'::text);

CREATE INDEX runs_to_compact ON holdfast.runs USING btree (ended_at) WHERE (segments > 16);

CREATE INDEX runs_unfinished ON holdfast.runs USING btree (thread_id, ord) WHERE (state = ANY (ARRAY['delayed'::text, 'blocked'::text, 'ready'::text, 'running'::text]));

CREATE INDEX runs_watched ON holdfast.runs USING btree (thread_id, ordinal) WHERE (is_watched AND (ordinal IS NOT NULL));

CREATE INDEX store_items_expiring ON holdfast.store_items USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX threads_by_created ON holdfast.threads USING btree (created_at, thread_id) WHERE (NOT is_temporary);

CREATE INDEX threads_by_metadata ON holdfast.threads USING gin (metadata jsonb_path_ops) WHERE (NOT is_temporary);

CREATE INDEX threads_by_state_updated ON holdfast.threads USING btree (state_updated_at, thread_id) WHERE (NOT is_temporary);

CREATE INDEX threads_by_status ON holdfast.threads USING btree (status, created_at, thread_id) WHERE (NOT is_temporary);

CREATE INDEX threads_by_updated ON holdfast.threads USING btree (updated_at, thread_id) WHERE (NOT is_temporary);

CREATE INDEX threads_expiring ON holdfast.threads USING btree (expires_at) WHERE (expires_at IS NOT NULL);

CREATE INDEX threads_left_over ON holdfast.threads USING btree (created_at) WHERE (is_temporary AND (expires_at IS NULL));

CREATE INDEX threads_waiting ON holdfast.threads USING btree (thread_id) WHERE has_waiting;

CREATE INDEX vault_entries_of_thread ON holdfast.vault_entries USING btree (thread_id);

CREATE INDEX webhooks_due ON holdfast.webhooks USING btree (next_at) WHERE (state = 'pending'::text);

CREATE INDEX webhooks_ended ON holdfast.webhooks USING btree (ended_at) WHERE (state <> 'pending'::text);

CREATE INDEX webhooks_of_run ON holdfast.webhooks USING btree (run_id);

CREATE UNIQUE INDEX runs_idem_key ON holdfast.runs USING btree (idem_key) WHERE (idem_key IS NOT NULL);

CREATE UNIQUE INDEX runs_one_live ON holdfast.runs USING btree (thread_id) WHERE (state = ANY (ARRAY['ready'::text, 'running'::text]));

CREATE TRIGGER audit_entries_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON holdfast.audit_entries FOR EACH STATEMENT EXECUTE FUNCTION holdfast.refuse_audit_change();

CREATE TRIGGER audit_links_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON holdfast.audit_links FOR EACH STATEMENT EXECUTE FUNCTION holdfast.refuse_audit_change();

CREATE OR REPLACE FUNCTION holdfast.refuse_audit_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'The audit log is append-only: % of % is refused.', tg_op, tg_table_name
    using errcode = 'restrict_violation';
end
$function$;

CREATE STATISTICS holdfast.runs_graph ON (metadata ->> 'graph_id'::text) FROM holdfast.runs;

CREATE OR REPLACE FUNCTION holdfast.search_text(source text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$ select translate(source, '-/\‐‑‒–—−', '         ') $function$;

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
-- 0017_budgets (breaking: no)
-- 0018_rate_limits (breaking: no)
-- 0019_caches (breaking: no)
-- 0020_replaced_writes (breaking: no)
-- 0021_undone_runs (breaking: no)

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

create table holdfast.budget_entries (
  entry_id bigint generated always as identity not null,
  period_id bigint not null,
  call_id uuid not null,
  kind text not null,
  reserved bigint not null,
  spent bigint not null,
  at timestamp with time zone default now() not null,
  constraint budget_entries_call_id_fkey FOREIGN KEY (call_id) REFERENCES holdfast.model_calls(call_id),
  constraint budget_entries_kind CHECK ((kind = ANY (ARRAY['reserved'::text, 'settled'::text, 'released'::text, 'presumed'::text]))),
  constraint budget_entries_period_id_fkey FOREIGN KEY (period_id) REFERENCES holdfast.budget_periods(period_id),
  constraint budget_entries_pkey PRIMARY KEY (entry_id)
);

create table holdfast.budget_periods (
  period_id bigint generated always as identity not null,
  budget_id uuid not null,
  scope_id text not null,
  starts_at timestamp with time zone not null,
  ends_at timestamp with time zone,
  max bigint not null,
  spent bigint default 0 not null,
  reserved bigint default 0 not null,
  excess bigint default 0 not null,
  constraint budget_periods_budget_id_fkey FOREIGN KEY (budget_id) REFERENCES holdfast.budgets(budget_id),
  constraint budget_periods_excess CHECK ((excess >= 0)),
  constraint budget_periods_max CHECK (((spent + reserved) <= (max + excess))),
  constraint budget_periods_pkey PRIMARY KEY (period_id),
  constraint budget_periods_place UNIQUE (budget_id, scope_id, starts_at),
  constraint budget_periods_reserved CHECK ((reserved >= 0)),
  constraint budget_periods_spent CHECK ((spent >= 0))
);

create table holdfast.budgets (
  budget_id uuid not null,
  tenant_id text not null,
  scope text not null,
  scope_id text not null,
  unit text not null,
  period text not null,
  max bigint not null,
  created_at timestamp with time zone default now() not null,
  updated_at timestamp with time zone default now() not null,
  retired_at timestamp with time zone,
  constraint budgets_max CHECK ((max >= 0)),
  constraint budgets_period CHECK ((period = ANY (ARRAY['minute'::text, 'hour'::text, 'day'::text, 'month'::text, 'total'::text]))),
  constraint budgets_pkey PRIMARY KEY (budget_id),
  constraint budgets_scope CHECK ((scope = ANY (ARRAY['tenant'::text, 'user'::text, 'assistant'::text, 'thread'::text]))),
  constraint budgets_unit CHECK ((unit = ANY (ARRAY['tokens'::text, 'micro_usd'::text])))
);

create table holdfast.cache_entries (
  tenant_id text not null,
  kind text not null,
  key text collate "C" not null,
  value bytea not null,
  created_at timestamp with time zone default now() not null,
  used_at timestamp with time zone default now() not null,
  expires_at timestamp with time zone not null,
  constraint cache_entries_pkey PRIMARY KEY (tenant_id, kind, key)
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

create table holdfast.model_calls (
  call_id uuid not null,
  tenant_id text not null,
  run_id uuid not null,
  attempt integer not null,
  thread_id text not null,
  assistant_id uuid not null,
  user_id text,
  node text,
  model text not null,
  state text not null,
  input_tokens bigint,
  cached_tokens bigint,
  output_tokens bigint,
  micro_usd bigint,
  is_estimated boolean default false not null,
  created_at timestamp with time zone default now() not null,
  ended_at timestamp with time zone,
  expires_at timestamp with time zone not null,
  constraint model_calls_pkey PRIMARY KEY (call_id),
  constraint model_calls_state CHECK ((state = ANY (ARRAY['held'::text, 'sent'::text, 'settled'::text, 'released'::text, 'presumed'::text])))
);

create table holdfast.postings (
  collection_id bigint not null,
  lexeme text collate "C" not null,
  chunk_id bigint not null,
  tf real not null,
  length real not null
);

create table holdfast.pseudonym_keys (
  only_row boolean default true not null,
  key bytea not null,
  constraint pseudonym_keys_only_row CHECK (only_row),
  constraint pseudonym_keys_pkey PRIMARY KEY (only_row)
);

create table holdfast.rate_limits (
  key text collate "C" not null,
  points integer default 0 not null,
  expire bigint,
  constraint rate_limits_pkey PRIMARY KEY (key)
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

create table holdfast.undone_runs (
  thread_id text not null,
  ordinal integer not null,
  run_id uuid not null,
  created_at timestamp with time zone default now() not null,
  constraint undone_runs_key PRIMARY KEY (thread_id, ordinal),
  constraint undone_runs_thread_id_fkey FOREIGN KEY (thread_id) REFERENCES holdfast.threads(thread_id) ON DELETE CASCADE
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
  was_type text,
  was_blob bytea,
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

CREATE INDEX budget_entries_of_call ON holdfast.budget_entries USING btree (call_id);

CREATE INDEX budget_entries_of_period ON holdfast.budget_entries USING btree (period_id);

CREATE INDEX budget_periods_by_end ON holdfast.budget_periods USING btree (budget_id, ends_at);

CREATE INDEX cache_entries_by_end ON holdfast.cache_entries USING btree (expires_at);

CREATE INDEX crons_due ON holdfast.crons USING btree (next_run_at) WHERE (is_enabled AND (next_run_at IS NOT NULL));

CREATE INDEX crons_of_assistant ON holdfast.crons USING btree (assistant_id);

CREATE INDEX crons_of_thread ON holdfast.crons USING btree (thread_id) WHERE (thread_id IS NOT NULL);

CREATE INDEX data_keys_by_kek ON holdfast.data_keys USING btree (kek_id, data_key_id);

CREATE INDEX data_keys_of_rest ON holdfast.data_keys USING btree (tenant_id, path, created_at) WHERE (thread_id IS NULL);

CREATE INDEX data_keys_of_thread ON holdfast.data_keys USING btree (thread_id) WHERE (thread_id IS NOT NULL);

CREATE INDEX model_calls_by_thread ON holdfast.model_calls USING btree (thread_id, created_at);

CREATE INDEX model_calls_by_time ON holdfast.model_calls USING btree (tenant_id, created_at);

CREATE INDEX model_calls_open ON holdfast.model_calls USING btree (expires_at) WHERE (state = ANY (ARRAY['held'::text, 'sent'::text]));

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

CREATE UNIQUE INDEX budgets_place ON holdfast.budgets USING btree (tenant_id, scope, scope_id, unit, period) WHERE (retired_at IS NULL);

CREATE UNIQUE INDEX runs_idem_key ON holdfast.runs USING btree (idem_key) WHERE (idem_key IS NOT NULL);

CREATE UNIQUE INDEX runs_one_live ON holdfast.runs USING btree (thread_id) WHERE (state = ANY (ARRAY['ready'::text, 'running'::text]));

CREATE TRIGGER audit_entries_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON holdfast.audit_entries FOR EACH STATEMENT EXECUTE FUNCTION holdfast.refuse_audit_change();

CREATE TRIGGER audit_links_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON holdfast.audit_links FOR EACH STATEMENT EXECUTE FUNCTION holdfast.refuse_audit_change();

CREATE TRIGGER budget_entries_append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON holdfast.budget_entries FOR EACH STATEMENT EXECUTE FUNCTION holdfast.refuse_entry_change();

CREATE OR REPLACE FUNCTION holdfast.close_call(p_call uuid, p_from text[], p_to text, p_input bigint, p_cached bigint, p_output bigint, p_micro_usd bigint, p_estimated boolean)
 RETURNS boolean
 LANGUAGE plpgsql
AS $function$
begin
  perform 1 from holdfast.model_calls c where c.call_id = p_call and c.state = any (p_from) for update;
  if not found then return false; end if;
  perform 1 from holdfast.budget_periods p
    where p.period_id in (select e.period_id from holdfast.budget_entries e where e.call_id = p_call)
    order by p.period_id for update;
  update holdfast.model_calls c
     set state = p_to, input_tokens = p_input, cached_tokens = p_cached, output_tokens = p_output, micro_usd = p_micro_usd,
         is_estimated = p_estimated, ended_at = clock_timestamp()
   where c.call_id = p_call;
  with held as (
    select e.period_id, sum(e.reserved) as open, sum(e.spent) as spent,
           sum(e.reserved) filter (where e.kind = 'reserved') as cap
      from holdfast.budget_entries e where e.call_id = p_call group by e.period_id),
  charge as (
    select h.*, case
             when p_to = 'released' then 0
             when p_to = 'presumed' then h.cap
             when b.unit = 'tokens' then p_input + p_output
             else coalesce(p_micro_usd, h.cap) end as cost
      from held h join holdfast.budget_periods p using (period_id) join holdfast.budgets b using (budget_id)),
  entry as (
    insert into holdfast.budget_entries (period_id, call_id, kind, reserved, spent)
    select period_id, p_call, p_to, -open, cost - spent from charge)
  update holdfast.budget_periods p
     set reserved = p.reserved - c.open, spent = p.spent + c.cost - c.spent, excess = p.excess + greatest(0, c.cost - c.cap)
    from charge c where p.period_id = c.period_id;
  return true;
end
$function$;

CREATE OR REPLACE FUNCTION holdfast.expire_calls(p_limit integer)
 RETURNS integer
 LANGUAGE plpgsql
AS $function$
declare
  open record;
  closed integer := 0;
begin
  for open in
    select c.call_id, c.state from holdfast.model_calls c
     where c.state in ('held', 'sent')
       and (c.expires_at < now() or not exists (
         select 1 from holdfast.runs r where r.run_id = c.run_id and r.attempt = c.attempt and r.state = 'running'))
     order by c.expires_at limit p_limit for update skip locked
  loop
    if holdfast.close_call(open.call_id, array[open.state], case open.state when 'held' then 'released' else 'presumed' end,
                           null, null, null, null, true)
    then closed := closed + 1; end if;
  end loop;
  return closed;
end
$function$;

CREATE OR REPLACE FUNCTION holdfast.limits_of(p_tenant text, p_user text, p_assistant uuid, p_thread text)
 RETURNS TABLE(budget_id uuid, whose text, starts_at timestamp with time zone, ends_at timestamp with time zone, max bigint)
 LANGUAGE sql
 STABLE
 SET "TimeZone" TO 'UTC'
AS $function$
  select distinct on (b.scope, b.unit, b.period) b.budget_id, x.id,
         case b.period when 'total' then timestamptz 'epoch' else date_trunc(b.period, now(), 'UTC') end,
         case b.period when 'total' then null else date_trunc(b.period, now(), 'UTC') + ('1 ' || b.period)::interval end,
         b.max
    from holdfast.budgets b
    join (values ('tenant', p_tenant), ('user', p_user), ('assistant', p_assistant::text), ('thread', p_thread)) x (scope, id)
      on x.scope = b.scope and b.scope_id in (x.id, '*')
   where b.tenant_id = p_tenant and b.retired_at is null and x.id is not null
   order by b.scope, b.unit, b.period, b.scope_id = '*'
$function$;

CREATE OR REPLACE FUNCTION holdfast.refuse_audit_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'The audit log is append-only: % of % is refused.', tg_op, tg_table_name
    using errcode = 'restrict_violation';
end
$function$;

CREATE OR REPLACE FUNCTION holdfast.refuse_entry_change()
 RETURNS trigger
 LANGUAGE plpgsql
AS $function$
begin
  raise exception 'The ledger is append-only: % of % is refused.', tg_op, tg_table_name
    using errcode = 'restrict_violation';
end
$function$;

CREATE OR REPLACE FUNCTION holdfast.reserve_call(p_call uuid, p_tenant text, p_run uuid, p_worker uuid, p_attempt integer, p_thread text, p_assistant uuid, p_user text, p_node text, p_model text, p_state text, p_ttl_ms bigint, p_tokens bigint, p_micro_usd bigint)
 RETURNS TABLE(outcome text, budget_id uuid, scope text, unit text, period text, max bigint, free bigint, asked bigint, ends_at timestamp with time zone)
 LANGUAGE plpgsql
AS $function$
#variable_conflict use_column
declare
  ids bigint[];
  missing integer;
begin
  perform 1 from holdfast.runs r
    where r.run_id = p_run and r.worker_id = p_worker and r.attempt = p_attempt and r.state = 'running' for share;
  if not found then
    return query select 'lost', null::uuid, null, null, null, null::bigint, null::bigint, null::bigint, null::timestamptz;
    return;
  end if;

  if p_tokens < 0 or p_micro_usd < 0 then
    raise exception 'A call cannot cost less than nothing.' using errcode = 'invalid_parameter_value';
  end if;
  -- The first try may still be waiting for a lock although whoever asked has given up on it.
  perform pg_advisory_xact_lock(hashtextextended(p_call::text, 17));
  -- Asked again, because the first answer was lost.
  if exists (select 1 from holdfast.model_calls c where c.call_id = p_call) then
    return query select 'reserved', null::uuid, null, null, null, null::bigint, null::bigint, null::bigint, null::timestamptz;
    return;
  end if;

  loop
    -- In one order, so that two calls that begin periods never wait for each other.
    insert into holdfast.budget_periods (budget_id, scope_id, starts_at, ends_at, max)
    select l.budget_id, l.whose, l.starts_at, l.ends_at, l.max
      from holdfast.limits_of(p_tenant, p_user, p_assistant, p_thread) l
     where not exists (
       select 1 from holdfast.budget_periods p
        where p.budget_id = l.budget_id and p.scope_id = l.whose and p.starts_at = l.starts_at)
     order by l.budget_id, l.whose
    on conflict on constraint budget_periods_place do nothing;

    -- A budget that was made meanwhile takes the place of another, and has no period yet.
    select coalesce(array_agg(p.period_id) filter (where p.period_id is not null), '{}'),
           count(*) filter (where p.period_id is null) into ids, missing
      from holdfast.limits_of(p_tenant, p_user, p_assistant, p_thread) l
      left join holdfast.budget_periods p on p.budget_id = l.budget_id and p.scope_id = l.whose and p.starts_at = l.starts_at;
    exit when missing = 0;
  end loop;
  perform 1 from holdfast.budget_periods p where p.period_id = any (ids) order by p.period_id for update;

  update holdfast.budget_periods p
     set max = b.max, excess = greatest(0, p.spent + p.reserved - b.max)
    from holdfast.budgets b
   where p.period_id = any (ids) and b.budget_id = p.budget_id and b.max <> p.max;

  -- Of several that are short the one that lasts longest: before it ends, none of the others helps.
  return query
  select case when b.unit = 'micro_usd' and p_micro_usd is null then 'unpriced' else 'short' end,
         b.budget_id, b.scope, b.unit, b.period, p.max, greatest(0, p.max - p.spent - p.reserved),
         case b.unit when 'tokens' then p_tokens else p_micro_usd end, p.ends_at
    from holdfast.budget_periods p join holdfast.budgets b using (budget_id)
   where p.period_id = any (ids)
     and (case b.unit when 'tokens' then p_tokens else p_micro_usd end <= p.max - p.spent - p.reserved) is not true
   order by p.ends_at desc nulls first limit 1;
  if found then return; end if;

  insert into holdfast.model_calls
    (call_id, tenant_id, run_id, attempt, thread_id, assistant_id, user_id, node, model, state, expires_at)
  values (p_call, p_tenant, p_run, p_attempt, p_thread, p_assistant, p_user, p_node, p_model, p_state,
          clock_timestamp() + p_ttl_ms * interval '1 millisecond');
  update holdfast.budget_periods p
     set reserved = p.reserved + case b.unit when 'tokens' then p_tokens else p_micro_usd end
    from holdfast.budgets b where p.period_id = any (ids) and b.budget_id = p.budget_id;
  insert into holdfast.budget_entries (period_id, call_id, kind, reserved, spent)
  select p.period_id, p_call, 'reserved', case b.unit when 'tokens' then p_tokens else p_micro_usd end, 0
    from holdfast.budget_periods p join holdfast.budgets b using (budget_id) where p.period_id = any (ids);
  return query select 'reserved', null::uuid, null, null, null, null::bigint, null::bigint, null::bigint, null::timestamptz;
end
$function$;

CREATE STATISTICS holdfast.runs_graph ON (metadata ->> 'graph_id'::text) FROM holdfast.runs;

CREATE OR REPLACE FUNCTION holdfast.search_text(source text)
 RETURNS text
 LANGUAGE sql
 IMMUTABLE PARALLEL SAFE
AS $function$ select translate(source, '-/\‐‑‒–—−', '         ') $function$;

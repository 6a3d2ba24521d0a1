-- breaking: no
-- The audit log: who did what to which object, by ids and hashes, never with content. Entries are only ever added. Each
-- is then bound to the one before it by a hash, so that a change that was made past the triggers is found.
-- One chain for the whole database: an operator verifies it as a whole, and a tenant could be cut out of a chain of its
-- own without a trace. Older servers go on: they write no entries.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create table holdfast.audit_entries (
  entry_id uuid primary key,
  tenant_id text not null,
  at timestamptz not null default now(),
  actor_kind text not null,
  actor_hash text,
  action text not null,
  object text not null,
  outcome text not null,
  detail jsonb not null default '{}',
  constraint audit_entries_actor_kind check (actor_kind in ('command', 'caller', 'server'))
);

create table holdfast.audit_links (
  seq bigint primary key,
  entry_id uuid not null unique references holdfast.audit_entries,
  -- Null for the first one only.
  prev_hash bytea,
  hash bytea not null unique,
  constraint audit_links_seq check (seq > 0),
  -- No two entries follow the same one: there is no fork, whoever writes.
  constraint audit_links_prev_hash_key unique nulls not distinct (prev_hash)
);

-- Entries that are not in the chain yet, so that none has to be looked for among all that are. Nothing is believed
-- because of a row here: an entry that is neither in the chain nor waiting for it is found by verification.
create table holdfast.audit_unlinked (
  entry_id uuid primary key references holdfast.audit_entries
);

create function holdfast.refuse_audit_change() returns trigger
language plpgsql
as $$
begin
  raise exception 'The audit log is append-only: % of % is refused.', tg_op, tg_table_name
    using errcode = 'restrict_violation';
end
$$;

create trigger audit_entries_append_only
  before update or delete or truncate on holdfast.audit_entries
  for each statement execute function holdfast.refuse_audit_change();
create trigger audit_links_append_only
  before update or delete or truncate on holdfast.audit_links
  for each statement execute function holdfast.refuse_audit_change();

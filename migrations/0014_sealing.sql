-- breaking: no
-- Keys of sealed data, each wrapped by a key that the database never sees. A thread has one of its own, and so has a
-- namespace of the store; what belongs to neither has one of its tenant. Deleting a thread deletes its keys.
-- Older servers seal nothing and go on while nothing is sealed; afterwards the database refuses what they write.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create table holdfast.data_keys (
  data_key_id uuid primary key,
  tenant_id text not null,
  -- Whose data it is for: a thread's, those of a namespace of the store, or (both null) the rest of its tenant.
  thread_id text references holdfast.threads on delete cascade,
  path text collate "C",
  -- The name of the key that wraps it.
  kek_id text not null,
  wrapped bytea not null,
  created_at timestamptz not null default now(),
  constraint data_keys_subject check (num_nonnulls(thread_id, path) <= 1)
);
create index data_keys_of_thread on holdfast.data_keys (thread_id) where thread_id is not null;
create index data_keys_of_rest on holdfast.data_keys (tenant_id, path, created_at) where thread_id is null;
create index data_keys_by_kek on holdfast.data_keys (kek_id, data_key_id);

-- The key under which what is written to the thread is sealed.
alter table holdfast.threads add column data_key_id uuid;

-- A sealed value is a text.
alter table holdfast.store_items drop constraint store_items_value;
alter table holdfast.store_items add constraint store_items_value
  check (jsonb_typeof(value) in ('object', 'string')) not valid;

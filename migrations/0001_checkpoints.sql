-- breaking: no
-- The tables of the stock PostgresSaver, made or adopted in place, with what our saver adds:
-- the order of a superstep's writes (task_path) and the age of a checkpoint (created_at).
set local lock_timeout = '10s';
set local statement_timeout = '10min';

create schema if not exists holdfast;

create table if not exists public.checkpoint_migrations (v integer primary key);

create table if not exists public.checkpoints (
  thread_id text not null,
  checkpoint_ns text not null default '',
  checkpoint_id text not null,
  parent_checkpoint_id text,
  type text,
  checkpoint jsonb not null,
  metadata jsonb not null default '{}',
  primary key (thread_id, checkpoint_ns, checkpoint_id)
);

create table if not exists public.checkpoint_blobs (
  thread_id text not null,
  checkpoint_ns text not null default '',
  channel text not null,
  version text not null,
  type text not null,
  blob bytea,
  primary key (thread_id, checkpoint_ns, channel, version)
);

create table if not exists public.checkpoint_writes (
  thread_id text not null,
  checkpoint_ns text not null default '',
  checkpoint_id text not null,
  task_id text not null,
  idx integer not null,
  channel text not null,
  type text,
  blob bytea not null,
  primary key (thread_id, checkpoint_ns, checkpoint_id, task_id, idx)
);

-- An adopted database may stop before the stock saver's last migration.
-- squawk-ignore ban-drop-not-null
alter table public.checkpoint_blobs alter column blob drop not null;
alter table public.checkpoints add column if not exists created_at timestamptz not null default now();
alter table public.checkpoint_writes add column if not exists task_path text not null default '';

-- The stock saver's setup() then finds nothing left to do.
insert into public.checkpoint_migrations (v) select generate_series(0, 4) on conflict do nothing;

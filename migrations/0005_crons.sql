-- breaking: no
-- Schedules that become runs, and the indexes by which a sweep finds what nobody needs any more.
set local lock_timeout = '10s';
set local statement_timeout = '10min';

-- next_run_at is the fire time that is due next; null when there is none. claimed_until keeps the instances from
-- firing the same one together; that it is fired once is up to runs.idem_key.
create table holdfast.crons (
  cron_id uuid primary key,
  assistant_id uuid not null references holdfast.assistants on delete cascade,
  thread_id text references holdfast.threads on delete cascade,
  schedule text not null,
  timezone text,
  end_time timestamptz,
  on_run_completed text not null default 'delete' constraint crons_on_run_completed check (on_run_completed in ('delete', 'keep')),
  is_enabled boolean not null default true,
  payload json not null,
  metadata jsonb not null default '{}',
  next_run_at timestamptz,
  claimed_until timestamptz,
  error text,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);
create index crons_due on holdfast.crons (next_run_at) where is_enabled and next_run_at is not null;
create index crons_of_assistant on holdfast.crons (assistant_id);
create index crons_of_thread on holdfast.crons (thread_id) where thread_id is not null;

-- These are empty or nearly so: their columns came with the migration before this one.
-- A temporary thread whose runs were cancelled before they began has no end to count from.
-- squawk-ignore require-concurrent-index-creation
create index threads_left_over on holdfast.threads (created_at) where is_temporary and expires_at is null;

-- squawk-ignore require-concurrent-index-creation
create index webhooks_of_run on holdfast.webhooks (run_id);
-- squawk-ignore require-concurrent-index-creation
create index webhooks_ended on holdfast.webhooks (ended_at) where state <> 'pending';

-- breaking: no
set local lock_timeout = '10s';
set local statement_timeout = '10min';

-- A live instance holds the session advisory lock hashtextextended(worker_id::text, 7).
create table holdfast.instances (
  worker_id uuid primary key,
  started_at timestamptz not null default now()
);

create table holdfast.assistants (
  assistant_id uuid primary key,
  graph_id text not null,
  name text not null,
  description text,
  version integer not null default 1,
  config jsonb not null default '{}',
  context jsonb not null default '{}',
  metadata jsonb not null default '{}',
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

create table holdfast.threads (
  thread_id text primary key,
  status text not null default 'idle' constraint threads_status check (status in ('idle', 'busy', 'interrupted', 'error')),
  metadata jsonb not null default '{}',
  config jsonb not null default '{}',
  error json,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  state_updated_at timestamptz not null default now()
);

-- Threads of an adopted PostgresSaver database carry on.
insert into holdfast.threads (thread_id) select distinct thread_id from public.checkpoints;

create table holdfast.runs (
  run_id uuid primary key,
  thread_id text not null references holdfast.threads on delete cascade,
  assistant_id uuid not null references holdfast.assistants,
  ord bigint generated always as identity,
  state text not null constraint runs_state check (
    state in ('delayed', 'blocked', 'ready', 'running', 'success', 'error', 'timeout', 'interrupted')
  ),
  attempt integer not null default 1,
  worker_id uuid,
  multitask text not null default 'reject',
  metadata jsonb not null default '{}',
  kwargs json not null,
  error json,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now()
);

-- The database allows one live run per thread, whatever the code does.
create unique index runs_one_live on holdfast.runs (thread_id) where state in ('ready', 'running');
create index runs_of_thread on holdfast.runs (thread_id, ord);
create index runs_of_worker on holdfast.runs (worker_id) where state = 'running';

create table holdfast.run_events (
  run_id uuid not null references holdfast.runs on delete cascade,
  seq integer not null check (seq >= 0),
  event text not null,
  data text not null,
  created_at timestamptz not null default now(),
  primary key (run_id, seq)
);

-- breaking: no
-- What is kept of a watched run that was rolled back: its place among the runs of its thread. Who was away meanwhile is
-- told when he comes back that what he saw of it counts no more. Older servers leave no such rows.
-- squawk-ignore-file prefer-robust-stmts
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create table holdfast.undone_runs (
  thread_id text not null references holdfast.threads on delete cascade,
  ordinal integer not null,
  run_id uuid not null,
  created_at timestamptz not null default now(),
  constraint undone_runs_key primary key (thread_id, ordinal)
);

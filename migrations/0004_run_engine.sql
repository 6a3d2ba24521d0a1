-- breaking: yes
-- Queue, takeover and the event log: what lets any instance go on with a run that another one began.
-- No server runs meanwhile, so nobody waits for the indexes and nobody misses the old table.
-- squawk-ignore-file require-concurrent-index-creation, renaming-table
set local lock_timeout = '10s';
set local statement_timeout = '10min';

alter table holdfast.instances add column beat_at timestamptz not null default now();
alter table holdfast.instances add column is_draining boolean not null default false;
-- False behind a transaction pooler, where no session lock can be held: then only the heartbeat tells.
alter table holdfast.instances add column has_lock boolean not null default true;

-- state is what GET /threads/:id/state answers for the newest checkpoint; null means it has to be computed.
alter table holdfast.threads add column state json;
-- What the status is when no run waits or runs: state may hold what SQL cannot read.
alter table holdfast.threads add column resting text not null default 'idle' constraint threads_resting check (resting in ('idle', 'interrupted', 'error'));
-- Whether runs wait behind the live one. Set under the row's lock, so that who ends a run sees it.
alter table holdfast.threads add column has_waiting boolean not null default false;
alter table holdfast.threads add column is_temporary boolean not null default false;
alter table holdfast.threads add column ttl_minutes double precision;
alter table holdfast.threads add column ttl_strategy text constraint threads_ttl_strategy check (ttl_strategy in ('delete', 'keep_latest'));
alter table holdfast.threads add column expires_at timestamptz;
create index threads_waiting on holdfast.threads (thread_id) where has_waiting;
create index threads_expiring on holdfast.threads (expires_at) where expires_at is not null;

-- boot names the life of the database server that an attempt began in: after a crash of it, events that clients
-- have seen may be gone.
alter table holdfast.runs alter column attempt set default 0;
alter table holdfast.runs add column run_at timestamptz not null default now();
alter table holdfast.runs add column handovers integer not null default 0;
alter table holdfast.runs add column cancel text constraint runs_cancel check (cancel in ('interrupt', 'rollback'));
alter table holdfast.runs add column cancel_reason text;
alter table holdfast.runs add column idem_key text;
alter table holdfast.runs add column deadline timestamptz;
alter table holdfast.runs add column boot text;
alter table holdfast.runs add column webhook text;
alter table holdfast.runs add column segments integer not null default 0;
alter table holdfast.runs add column started_at timestamptz;
alter table holdfast.runs add column ended_at timestamptz;
create unique index runs_idem_key on holdfast.runs (idem_key) where idem_key is not null;
create index runs_ready on holdfast.runs (run_at, ord) where state = 'ready';
create index runs_blocked on holdfast.runs (thread_id, ord) where state = 'blocked';
create index runs_delayed on holdfast.runs (run_at) where state = 'delayed';
create index runs_unfinished on holdfast.runs (thread_id, ord) where state in ('delayed', 'blocked', 'ready', 'running');
create index runs_to_compact on holdfast.runs (ended_at) where segments > 16;

-- Which run wrote it: a resume writes to a checkpoint of the run before, and a rollback must find that.
alter table public.checkpoint_writes add column if not exists run_id uuid;

-- The log: one row holds the events seq … last of a run, as lines. It has no foreign key: each write is fenced on
-- its run's row, and what deletes a run deletes its events.
alter table holdfast.run_events rename to run_events_v1;
create table holdfast.run_events (
  run_id uuid not null,
  seq integer not null,
  last integer not null,
  attempt integer not null,
  body text not null,
  constraint run_events_range check (last >= seq and seq >= 0),
  constraint run_events_key primary key (run_id, seq)
) with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.1);
insert into holdfast.run_events (run_id, seq, last, attempt, body)
select run_id, seq, seq, 1, concat('e', chr(9), event, chr(9), data) from holdfast.run_events_v1;
-- squawk-ignore ban-drop-table
drop table holdfast.run_events_v1;

-- The outbox: a row is written in the transaction that ends its run.
create table holdfast.webhooks (
  webhook_id uuid primary key,
  run_id uuid not null,
  url text not null,
  payload json not null,
  state text not null default 'pending' constraint webhooks_state check (state in ('pending', 'delivered', 'parked')),
  attempts integer not null default 0,
  next_at timestamptz not null default now(),
  error text,
  created_at timestamptz not null default now(),
  ended_at timestamptz
);
create index webhooks_due on holdfast.webhooks (next_at) where state = 'pending';

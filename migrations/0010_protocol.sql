-- breaking: no
-- transaction: no
-- Protocol v2 follows a thread over all its runs, so its events need numbers that grow over the whole thread.
-- ordinal says the how-manieth run of its thread one was to begin: the numbers of its events follow from it. Set when
-- the run becomes live, under the thread's lock. threads.begun counts them and never goes back, also when a run is deleted.
-- squawk-ignore-file ban-concurrent-index-creation-in-transaction, prefer-robust-stmts
set lock_timeout = '10s';
set statement_timeout = '10min';

alter table holdfast.threads add column if not exists begun integer not null default 0;
alter table holdfast.runs add column if not exists ordinal integer;
-- Whether the run tells its events in the form of protocol v2 too.
alter table holdfast.runs add column if not exists is_watched boolean not null default false;
-- After a retry its events have new numbers; those before keep the old ones and are not shown again.
alter table holdfast.runs add column if not exists told_from integer not null default 0;

set lock_timeout = '10min';
drop index concurrently if exists holdfast.runs_watched;
create index concurrently runs_watched on holdfast.runs (thread_id, ordinal) where is_watched and ordinal is not null;

-- Threads that somebody has followed by protocol v2, also before they exist.
create table if not exists holdfast.watched_threads (
  thread_id text not null,
  created_at timestamptz not null default now(),
  constraint watched_threads_key primary key (thread_id)
);

-- breaking: no
-- transaction: no
-- What thread search finds and sorts threads by. Built concurrently, because runs begin and end on the table meanwhile;
-- a build that failed leaves an invalid index, so each starts afresh.
-- Each run's begin and end changes a thread's status and times and so writes an entry to every index here. Temporary
-- threads are never shown and cost nothing.
-- squawk-ignore-file ban-concurrent-index-creation-in-transaction, prefer-robust-stmts
set lock_timeout = '10min';
set statement_timeout = '10min';

-- The thread's id breaks ties, so that pages neither repeat nor skip threads of the same moment.
drop index concurrently if exists holdfast.threads_by_created;
create index concurrently threads_by_created on holdfast.threads (created_at, thread_id) where not is_temporary;
drop index concurrently if exists holdfast.threads_by_updated;
create index concurrently threads_by_updated on holdfast.threads (updated_at, thread_id) where not is_temporary;
drop index concurrently if exists holdfast.threads_by_state_updated;
create index concurrently threads_by_state_updated on holdfast.threads (state_updated_at, thread_id) where not is_temporary;

-- Serves both: sorted by status, and those of one status in the default order.
drop index concurrently if exists holdfast.threads_by_status;
create index concurrently threads_by_status on holdfast.threads (status, created_at, thread_id) where not is_temporary;

drop index concurrently if exists holdfast.threads_by_metadata;
create index concurrently threads_by_metadata on holdfast.threads using gin (metadata jsonb_path_ops) where not is_temporary;

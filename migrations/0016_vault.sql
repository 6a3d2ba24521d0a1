-- breaking: no
-- What graphs with privacy "tokenise" keep apart: each value that was found on a thread, sealed under the thread's key,
-- beside the token that stands in its place. It goes with the thread. Older servers know nothing of tokens and show them.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create table holdfast.vault_entries (
  token text collate "C" not null,
  thread_id text not null references holdfast.threads on delete cascade,
  kind text not null,
  -- The value, and who gave it.
  value bytea not null,
  created_at timestamptz not null default now(),
  primary key (token, thread_id)
);
create index vault_entries_of_thread on holdfast.vault_entries (thread_id);

-- breaking: no
-- What a run found in the place of a question, or of a task's answers, that it has written anew: a rollback puts it back.
-- Sealed as it was, for the same place. Older servers leave both alone: what they write over is not put back.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

alter table public.checkpoint_writes add column was_type text;
alter table public.checkpoint_writes add column was_blob bytea;

-- breaking: no
-- Large values are compressed with lz4 where the server can: a long conversation's turn spends less time on it than on
-- PostgreSQL's own method, at about the same size. Rows that exist stay as they are, and both kinds are read.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

do $$
begin
  if exists (select from pg_settings where name = 'default_toast_compression' and 'lz4' = any (enumvals)) then
    alter table public.checkpoint_blobs alter column blob set compression lz4;
    alter table public.checkpoint_writes alter column blob set compression lz4;
    alter table holdfast.threads alter column state set compression lz4;
    alter table holdfast.run_events alter column body set compression lz4;
    alter table holdfast.runs alter column kwargs set compression lz4;
  end if;
end
$$;

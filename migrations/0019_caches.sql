-- breaking: no
-- Answers of models, vectors of texts and results of nodes that can be had again: anything here may be deleted at any time.
-- Unlogged, as nothing of it has to survive a crash of PostgreSQL. Older servers cache nothing.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create unlogged table holdfast.cache_entries (
  tenant_id text not null,
  kind text not null,
  -- A pseudonym of what was asked.
  key text collate "C" not null,
  value bytea not null,
  created_at timestamptz not null default now(),
  used_at timestamptz not null default now(),
  expires_at timestamptz not null,
  primary key (tenant_id, kind, key)
);
create index cache_entries_by_end on holdfast.cache_entries (expires_at);

-- A database that is sealed refuses what is not, here too.
do $$ begin
  if exists (select from pg_constraint where conname = 'threads_sealed' and conrelid = 'holdfast.threads'::regclass) then
    alter table holdfast.cache_entries add constraint cache_entries_value_sealed
      check (octet_length(value) >= 46 and get_byte(value, 0) = 1);
  end if;
end $$;

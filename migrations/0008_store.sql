-- breaking: no
-- The long-term store: items that graphs and clients keep across threads, each under a namespace and a key.
set local lock_timeout = '10s';
set local statement_timeout = '10min';

-- path is the namespace as one text: ".users.1." is [users, 1]. Labels hold no dot, so what stands under a prefix is the
-- range from ".users.1." up to ".users.1/" (the next character after the dot) in byte order, and no sibling is in it.
create table holdfast.store_items (
  path text collate "C" not null constraint store_items_path check (path ~ '^\.([^.]+\.)+$'),
  key text collate "C" not null,
  namespace text[] not null generated always as (trim_array((string_to_array(path, '.'))[2:], 1)) stored,
  value jsonb not null constraint store_items_value check (jsonb_typeof(value) = 'object'),
  ttl_minutes double precision,
  expires_at timestamptz,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  primary key (path, key)
);
create index store_items_expiring on holdfast.store_items (expires_at) where expires_at is not null;

-- breaking: no
-- Search by meaning in the long-term store: what an embedder made of the texts of an item, one row for each item that has any.
-- Older servers go on: they change items without their vectors, which then are those of an older item and count no more.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create table holdfast.store_vectors (
  path text collate "C" not null,
  key text collate "C" not null,
  -- Only vectors of one embedder can be compared.
  embedder text not null,
  -- The vectors belong to the item that was written then, and to no other.
  item_updated_at timestamptz not null,
  -- Each vector in one byte a dimension, with how far it may be off; kept in the row, where a search reads it fast.
  coarse bytea not null,
  -- Each vector as float4, little-endian; kept beside the row.
  exact bytea not null,
  primary key (path, key),
  foreign key (path, key) references holdfast.store_items (path, key) on delete cascade
);
alter table holdfast.store_vectors alter column coarse set storage main;
alter table holdfast.store_vectors alter column exact set storage external;

-- breaking: no
-- Documents, their chunks, and the postings that BM25 is computed from.
-- Every write locks its row of collections first, so that df, counts and lengths stay exact.
set local lock_timeout = '10s';
set local statement_timeout = '10min';

-- language is text, not regconfig: pg_upgrade refuses user tables with reg* columns.
create table holdfast.collections (
  collection_id bigint generated always as identity primary key,
  tenant_id text not null,
  name text not null,
  language text not null,
  documents bigint not null default 0,
  chunks bigint not null default 0,
  lexemes bigint not null default 0,
  revision bigint not null default 0,
  created_at timestamptz not null default now(),
  unique (tenant_id, name)
);

-- A document is the file it was read from, and its record within that file ('' when the file is one document).
create table holdfast.documents (
  document_id bigint generated always as identity primary key,
  tenant_id text not null,
  collection_id bigint not null references holdfast.collections on delete cascade,
  file text collate "C" not null,
  record text collate "C" not null,
  source_id text not null,
  title text not null,
  sha256 bytea not null,
  created_at timestamptz not null default now(),
  unique (collection_id, file, record)
);

create table holdfast.chunks (
  chunk_id bigint generated always as identity primary key,
  tenant_id text not null,
  collection_id bigint not null,
  document_id bigint not null references holdfast.documents on delete cascade,
  ordinal integer not null,
  body text not null,
  length integer not null,
  unique (document_id, ordinal)
);

-- df is the number of chunks that hold the lexeme.
create table holdfast.terms (
  collection_id bigint not null,
  lexeme text collate "C" not null,
  df bigint not null,
  primary key (collection_id, lexeme)
);

-- The chunk's length stands in each posting, so that a score needs this table's index and nothing else.
create table holdfast.postings (
  collection_id bigint not null,
  lexeme text collate "C" not null,
  chunk_id bigint not null,
  tf real not null,
  length real not null
);
create index postings_lookup on holdfast.postings (collection_id, lexeme) include (chunk_id, tf, length);
create index postings_chunk on holdfast.postings (chunk_id);

-- What is indexed and what is asked pass through here alike: the parts of "IL-6" and "HIV/AIDS" are words of
-- their own. The parser alone reads a signed number and a file name there.
create function holdfast.search_text(source text) returns text
language sql immutable parallel safe
as $$ select translate(source, '-/\‐‑‒–—−', '         ') $$;

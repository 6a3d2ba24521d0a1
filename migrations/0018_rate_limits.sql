-- breaking: no
-- What each caller has used of each limit of requests in its minute; expire is when that ends, in milliseconds since 1970.
-- The insert of the limiter names no columns: their order matters. Unlogged, since a crash of PostgreSQL may begin minutes
-- anew, and a request then waits for no disk. Older servers count nothing.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

create unlogged table holdfast.rate_limits (
  -- The limit, and the pseudonym of who it is.
  key text collate "C" primary key,
  points integer not null default 0,
  expire bigint
) with (fillfactor = 50);

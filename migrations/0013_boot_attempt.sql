-- breaking: no
-- The attempt that was the first in the life of the database server that `boot` names: numbers of events jump until an
-- attempt since then has written one, also when the first died before it could. Older servers do not set it: a run that
-- one of them takes over after a crash of the database jumps there, as before, and not again.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

alter table holdfast.runs add column boot_attempt integer not null default 1;

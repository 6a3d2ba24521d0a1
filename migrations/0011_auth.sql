-- breaking: no
-- Who asked for a run, or made a cron, as the user's authenticate() said: a run that is taken over tells its graph the same.
-- Null: nobody was asked who he is. Older servers ignore it and run such graphs without a user.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

alter table holdfast.runs add column if not exists auth json;
alter table holdfast.crons add column if not exists auth json;

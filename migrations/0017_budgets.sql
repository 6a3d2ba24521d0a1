-- breaking: no
-- Budgets: what may be spent, what was spent, and each change of it. A budget is a limit; a period is its counter for one
-- user, thread, assistant or tenant and one stretch of time; a call is one request to a provider, reserved at its worst
-- case before it is sent; an entry is one change of a period by a call and never changes. The sum of a period's entries is
-- the period. Rows outlive the runs and threads they name, which they name by id only. Older servers spend unseen.
set local lock_timeout = '10s';
set local statement_timeout = '1min';

-- The key under which identities become pseudonyms, so that none is kept as it is.
create table holdfast.pseudonym_keys (
  only_row boolean primary key default true,
  key bytea not null,
  constraint pseudonym_keys_only_row check (only_row)
);
insert into holdfast.pseudonym_keys (key)
values (decode(replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', ''), 'hex'));

create table holdfast.budgets (
  budget_id uuid primary key,
  tenant_id text not null,
  scope text not null,
  -- The tenant, a user's pseudonym, an assistant or a thread; * is a limit that each of them has for itself.
  scope_id text not null,
  unit text not null,
  period text not null,
  max bigint not null,
  created_at timestamptz not null default now(),
  updated_at timestamptz not null default now(),
  -- A budget that was deleted: it limits nothing any more, and what it counted stays.
  retired_at timestamptz,
  constraint budgets_scope check (scope in ('tenant', 'user', 'assistant', 'thread')),
  constraint budgets_unit check (unit in ('tokens', 'micro_usd')),
  constraint budgets_period check (period in ('minute', 'hour', 'day', 'month', 'total')),
  constraint budgets_max check (max >= 0)
);
create unique index budgets_place on holdfast.budgets (tenant_id, scope, scope_id, unit, period) where retired_at is null;

create table holdfast.budget_periods (
  period_id bigint generated always as identity primary key,
  budget_id uuid not null references holdfast.budgets,
  -- Whose: never *.
  scope_id text not null,
  starts_at timestamptz not null,
  -- Null: it never ends.
  ends_at timestamptz,
  max bigint not null,
  spent bigint not null default 0,
  reserved bigint not null default 0,
  -- By how much spent and reserved may be above max: the limit was lowered, or a provider billed more than it may.
  excess bigint not null default 0,
  constraint budget_periods_place unique (budget_id, scope_id, starts_at),
  constraint budget_periods_spent check (spent >= 0),
  constraint budget_periods_reserved check (reserved >= 0),
  constraint budget_periods_excess check (excess >= 0),
  constraint budget_periods_max check (spent + reserved <= max + excess)
);
create index budget_periods_by_end on holdfast.budget_periods (budget_id, ends_at);

create table holdfast.model_calls (
  call_id uuid primary key,
  tenant_id text not null,
  run_id uuid not null,
  attempt integer not null,
  thread_id text not null,
  assistant_id uuid not null,
  user_id text,
  node text,
  model text not null,
  state text not null,
  -- What the provider said that it was, or what was counted if it did not say (is_estimated).
  input_tokens bigint,
  cached_tokens bigint,
  output_tokens bigint,
  -- Null: the model has no price.
  micro_usd bigint,
  is_estimated boolean not null default false,
  created_at timestamptz not null default now(),
  ended_at timestamptz,
  expires_at timestamptz not null,
  constraint model_calls_state check (state in ('held', 'sent', 'settled', 'released', 'presumed'))
);
create index model_calls_open on holdfast.model_calls (expires_at) where state in ('held', 'sent');
create index model_calls_by_time on holdfast.model_calls (tenant_id, created_at);
create index model_calls_by_thread on holdfast.model_calls (thread_id, created_at);

create table holdfast.budget_entries (
  entry_id bigint generated always as identity primary key,
  period_id bigint not null references holdfast.budget_periods,
  call_id uuid not null references holdfast.model_calls,
  kind text not null,
  -- By how much the period's counters changed.
  reserved bigint not null,
  spent bigint not null,
  at timestamptz not null default now(),
  constraint budget_entries_kind check (kind in ('reserved', 'settled', 'released', 'presumed'))
);
create index budget_entries_of_call on holdfast.budget_entries (call_id);
create index budget_entries_of_period on holdfast.budget_entries (period_id);

create function holdfast.refuse_entry_change() returns trigger
language plpgsql
as $$
begin
  raise exception 'The ledger is append-only: % of % is refused.', tg_op, tg_table_name
    using errcode = 'restrict_violation';
end
$$;
create trigger budget_entries_append_only
  before update or delete or truncate on holdfast.budget_entries
  for each statement execute function holdfast.refuse_entry_change();

-- Reserves what a call costs at most in every budget that it falls under, or in none. The answer is a row: outcome is
-- reserved, lost (the run is not this worker's any more), short or unpriced; the rest says which budget.
-- Each step is a statement of its own, because a statement sees nothing that was committed after it began: with lock and
-- change in one, the limit would be compared with counters from before the lock.
create function holdfast.reserve_call(
  p_call uuid, p_tenant text, p_run uuid, p_worker uuid, p_attempt integer, p_thread text, p_assistant uuid, p_user text,
  p_node text, p_model text, p_state text, p_ttl_ms bigint, p_tokens bigint, p_micro_usd bigint
) returns table (
  outcome text, budget_id uuid, scope text, unit text, period text, max bigint, free bigint, asked bigint, ends_at timestamptz
)
language plpgsql
as $$
#variable_conflict use_column
declare
  ids bigint[];
  missing integer;
begin
  perform 1 from holdfast.runs r
    where r.run_id = p_run and r.worker_id = p_worker and r.attempt = p_attempt and r.state = 'running' for share;
  if not found then
    return query select 'lost', null::uuid, null, null, null, null::bigint, null::bigint, null::bigint, null::timestamptz;
    return;
  end if;

  if p_tokens < 0 or p_micro_usd < 0 then
    raise exception 'A call cannot cost less than nothing.' using errcode = 'invalid_parameter_value';
  end if;
  -- The first try may still be waiting for a lock although whoever asked has given up on it.
  perform pg_advisory_xact_lock(hashtextextended(p_call::text, 17));
  -- Asked again, because the first answer was lost.
  if exists (select 1 from holdfast.model_calls c where c.call_id = p_call) then
    return query select 'reserved', null::uuid, null, null, null, null::bigint, null::bigint, null::bigint, null::timestamptz;
    return;
  end if;

  loop
    -- In one order, so that two calls that begin periods never wait for each other.
    insert into holdfast.budget_periods (budget_id, scope_id, starts_at, ends_at, max)
    select l.budget_id, l.whose, l.starts_at, l.ends_at, l.max
      from holdfast.limits_of(p_tenant, p_user, p_assistant, p_thread) l
     where not exists (
       select 1 from holdfast.budget_periods p
        where p.budget_id = l.budget_id and p.scope_id = l.whose and p.starts_at = l.starts_at)
     order by l.budget_id, l.whose
    on conflict on constraint budget_periods_place do nothing;

    -- A budget that was made meanwhile takes the place of another, and has no period yet.
    select coalesce(array_agg(p.period_id) filter (where p.period_id is not null), '{}'),
           count(*) filter (where p.period_id is null) into ids, missing
      from holdfast.limits_of(p_tenant, p_user, p_assistant, p_thread) l
      left join holdfast.budget_periods p on p.budget_id = l.budget_id and p.scope_id = l.whose and p.starts_at = l.starts_at;
    exit when missing = 0;
  end loop;
  perform 1 from holdfast.budget_periods p where p.period_id = any (ids) order by p.period_id for update;

  update holdfast.budget_periods p
     set max = b.max, excess = greatest(0, p.spent + p.reserved - b.max)
    from holdfast.budgets b
   where p.period_id = any (ids) and b.budget_id = p.budget_id and b.max <> p.max;

  -- Of several that are short the one that lasts longest: before it ends, none of the others helps.
  return query
  select case when b.unit = 'micro_usd' and p_micro_usd is null then 'unpriced' else 'short' end,
         b.budget_id, b.scope, b.unit, b.period, p.max, greatest(0, p.max - p.spent - p.reserved),
         case b.unit when 'tokens' then p_tokens else p_micro_usd end, p.ends_at
    from holdfast.budget_periods p join holdfast.budgets b using (budget_id)
   where p.period_id = any (ids)
     and (case b.unit when 'tokens' then p_tokens else p_micro_usd end <= p.max - p.spent - p.reserved) is not true
   order by p.ends_at desc nulls first limit 1;
  if found then return; end if;

  insert into holdfast.model_calls
    (call_id, tenant_id, run_id, attempt, thread_id, assistant_id, user_id, node, model, state, expires_at)
  values (p_call, p_tenant, p_run, p_attempt, p_thread, p_assistant, p_user, p_node, p_model, p_state,
          clock_timestamp() + p_ttl_ms * interval '1 millisecond');
  update holdfast.budget_periods p
     set reserved = p.reserved + case b.unit when 'tokens' then p_tokens else p_micro_usd end
    from holdfast.budgets b where p.period_id = any (ids) and b.budget_id = p.budget_id;
  insert into holdfast.budget_entries (period_id, call_id, kind, reserved, spent)
  select p.period_id, p_call, 'reserved', case b.unit when 'tokens' then p_tokens else p_micro_usd end, 0
    from holdfast.budget_periods p join holdfast.budgets b using (budget_id) where p.period_id = any (ids);
  return query select 'reserved', null::uuid, null, null, null, null::bigint, null::bigint, null::bigint, null::timestamptz;
end
$$;

-- The budgets that a call falls under, and the period of each that is running: one of its own goes before one for each.
create function holdfast.limits_of(p_tenant text, p_user text, p_assistant uuid, p_thread text)
returns table (budget_id uuid, whose text, starts_at timestamptz, ends_at timestamptz, max bigint)
language sql stable
-- A day has 24 hours, whatever the time zone of the session says.
set timezone = 'UTC'
as $$
  select distinct on (b.scope, b.unit, b.period) b.budget_id, x.id,
         case b.period when 'total' then timestamptz 'epoch' else date_trunc(b.period, now(), 'UTC') end,
         case b.period when 'total' then null else date_trunc(b.period, now(), 'UTC') + ('1 ' || b.period)::interval end,
         b.max
    from holdfast.budgets b
    join (values ('tenant', p_tenant), ('user', p_user), ('assistant', p_assistant::text), ('thread', p_thread)) x (scope, id)
      on x.scope = b.scope and b.scope_id in (x.id, '*')
   where b.tenant_id = p_tenant and b.retired_at is null and x.id is not null
   order by b.scope, b.unit, b.period, b.scope_id = '*'
$$;

-- Ends a call: settled with what it cost, presumed at its worst case, or released as never sent. False: it was in none of
-- the states p_from, and nothing was changed. What was presumed may still be settled by who knows better.
create function holdfast.close_call(
  p_call uuid, p_from text[], p_to text, p_input bigint, p_cached bigint, p_output bigint, p_micro_usd bigint, p_estimated boolean
) returns boolean
language plpgsql
as $$
begin
  perform 1 from holdfast.model_calls c where c.call_id = p_call and c.state = any (p_from) for update;
  if not found then return false; end if;
  perform 1 from holdfast.budget_periods p
    where p.period_id in (select e.period_id from holdfast.budget_entries e where e.call_id = p_call)
    order by p.period_id for update;
  update holdfast.model_calls c
     set state = p_to, input_tokens = p_input, cached_tokens = p_cached, output_tokens = p_output, micro_usd = p_micro_usd,
         is_estimated = p_estimated, ended_at = clock_timestamp()
   where c.call_id = p_call;
  with held as (
    select e.period_id, sum(e.reserved) as open, sum(e.spent) as spent,
           sum(e.reserved) filter (where e.kind = 'reserved') as cap
      from holdfast.budget_entries e where e.call_id = p_call group by e.period_id),
  charge as (
    select h.*, case
             when p_to = 'released' then 0
             when p_to = 'presumed' then h.cap
             when b.unit = 'tokens' then p_input + p_output
             else coalesce(p_micro_usd, h.cap) end as cost
      from held h join holdfast.budget_periods p using (period_id) join holdfast.budgets b using (budget_id)),
  entry as (
    insert into holdfast.budget_entries (period_id, call_id, kind, reserved, spent)
    select period_id, p_call, p_to, -open, cost - spent from charge)
  update holdfast.budget_periods p
     set reserved = p.reserved - c.open, spent = p.spent + c.cost - c.spent, excess = p.excess + greatest(0, c.cost - c.cap)
    from charge c where p.period_id = c.period_id;
  return true;
end
$$;

-- Closes calls that nobody will: those whose time is over, and those of an attempt that is not executed any more. What was
-- never sent is released; what was sent may have been billed, so it is presumed at its worst case.
create function holdfast.expire_calls(p_limit integer) returns integer
language plpgsql
as $$
declare
  open record;
  closed integer := 0;
begin
  for open in
    select c.call_id, c.state from holdfast.model_calls c
     where c.state in ('held', 'sent')
       and (c.expires_at < now() or not exists (
         select 1 from holdfast.runs r where r.run_id = c.run_id and r.attempt = c.attempt and r.state = 'running'))
     order by c.expires_at limit p_limit for update skip locked
  loop
    if holdfast.close_call(open.call_id, array[open.state], case open.state when 'held' then 'released' else 'presumed' end,
                           null, null, null, null, true)
    then closed := closed + 1; end if;
  end loop;
  return closed;
end
$$;

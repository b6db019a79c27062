-- What happens around a turn: which place its revision had, what a shadow made of it, and the numbers of the tripwires.

alter table decisions add column slot text not null default 'active' check (slot in ('active', 'canary'));

-- One row per turn that the shadow revision of a chain judged after it was committed. Codes and numbers only: nothing
-- here is a word of the customer or of an answer.
create table policy_shadow_results (
    id               bigint generated always as identity primary key,
    at               timestamptz not null default now(),
    chain            text not null,
    active_revision  text not null,
    shadow_revision  text not null,
    turn_id          uuid not null,
    -- How far the comparison can be trusted: see `policy_engine::replay`.
    level            text not null check (level in ('exact', 'draft-would-differ', 'no-draft-recorded')),
    route_before     text not null,
    route_after      text not null,
    outcome_before   text not null,
    -- 'unknown' when the record holds no draft that the shadow could have judged.
    outcome_after    text not null,
    -- Machine-readable reason of the ticket; empty where there is none.
    reason_before    text not null,
    reason_after     text not null,
    -- Hook and kind of the first fault, such as 'filter/trap'.
    fault_before     text,
    fault_after      text,
    -- Changed characters as a share of the longer text, where both are known.
    text_distance    real,
    fuel_before      bigint not null,
    fuel_after       bigint not null,
    unique (shadow_revision, turn_id)
);
create index policy_shadow_results_by_revision on policy_shadow_results (chain, shadow_revision, id desc);
create index policy_shadow_results_by_time on policy_shadow_results (at);

-- The newest sliding windows of each replica, so that a tripwire sees the turns of all of them. Overwritten in place.
create table policy_turn_windows (
    chain      text not null,
    revision   text not null,
    -- served: the turns it judged. shadow: what it made of turns as a shadow. beside-shadow: what the active revision
    -- made of the same turns. before: the last window of the revision that it replaced.
    kind       text not null check (kind in ('served', 'shadow', 'beside-shadow', 'before')),
    replica    text not null,
    -- See `policy_engine::tripwire::Counts`.
    counts     jsonb not null,
    updated_at timestamptz not null default now(),
    primary key (chain, revision, kind, replica)
);

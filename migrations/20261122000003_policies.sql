-- Policy revisions: immutable and content-addressed, so that a decision can name the exact set that made it,
-- and a host whose folder is broken can start from the last good one.

create table policy_components (
    digest      text primary key,
    wasm        bytea not null,
    size_bytes  bigint not null,
    first_seen_at timestamptz not null default now()
);

create table policy_revisions (
    chain       text not null,
    revision    text not null,
    -- The bundle that staging read: chain.toml and settings as text; components by digest.
    chain_toml  text not null,
    files       jsonb not null,
    manifest    jsonb not null,
    created_at  timestamptz not null default now(),
    primary key (chain, revision)
);

-- The revision that last served each chain.
create table policy_active (
    chain       text primary key,
    revision    text not null,
    activated_at timestamptz not null default now(),
    foreign key (chain, revision) references policy_revisions (chain, revision)
);

-- Every change of state of a revision or candidate, with who, when and why.
create table policy_transitions (
    id          bigint generated always as identity primary key,
    at          timestamptz not null default now(),
    chain       text not null,
    -- Null when the candidate could not even be identified (an unreadable chain.toml).
    revision    text,
    state       text not null check (state in ('staged', 'active', 'retired', 'rejected')),
    actor       text not null,
    reason      text not null
);
create index policy_transitions_by_chain on policy_transitions (chain, id desc);

-- The life of a revision: staged -> shadow -> canary -> active -> retired, or rejected, or quarantined.
-- One row per chain says which revision is in which place; every replica follows it.

alter table policy_revisions
    add column state text not null default 'staged'
        check (state in ('staged', 'shadow', 'canary', 'active', 'retired', 'rejected', 'quarantined')),
    add column state_since timestamptz not null default now(),
    add column published_by text not null default 'host',
    -- The chain's golden cases as they were published with it: path -> text. They are no part of the revision's id.
    add column cases jsonb not null default '{}',
    -- What the gate found last: see `policy_engine::gate::Verdict`.
    add column gate jsonb;

update policy_revisions set state = 'retired';
update policy_revisions r set state = 'active', state_since = a.activated_at
  from policy_active a where a.chain = r.chain and a.revision = r.revision;

-- `revision` is the active one; null while a chain has none.
alter table policy_active
    alter column revision drop not null,
    -- Grows with every change, so that replicas can tell old news from new.
    add column generation bigint not null default 1,
    -- What made the active revision active: the folder of a replica, or a person or rule.
    add column origin text not null default 'folder' check (origin in ('folder', 'api')),
    -- What serves again when the active one is taken back.
    add column previous text,
    add column shadow text,
    add column canary text,
    add column canary_share_bp int not null default 0 check (canary_share_bp between 0 and 10000),
    add column canary_page_ids text[] not null default '{}',
    -- Steps that follow by the clock of this database: [{"share_bp": …, "minutes": …}, …]. Empty: the share stays.
    add column canary_steps jsonb not null default '[]',
    add column canary_step int not null default 0,
    add column canary_step_at timestamptz,
    add foreign key (chain, previous) references policy_revisions (chain, revision),
    add foreign key (chain, shadow) references policy_revisions (chain, revision),
    add foreign key (chain, canary) references policy_revisions (chain, revision),
    add check (canary is distinct from revision or canary is null),
    add check (shadow is distinct from revision or shadow is null),
    add check (shadow is distinct from canary or shadow is null);

alter table policy_transitions drop constraint policy_transitions_state_check;
alter table policy_transitions add constraint policy_transitions_state_check
    check (state in ('staged', 'shadow', 'canary', 'active', 'retired', 'rejected', 'quarantined'));
-- What a replica's folder held, for candidates that never became a revision.
alter table policy_transitions add column content_sha256 text;
create index policy_transitions_by_revision on policy_transitions (chain, revision, id desc);

-- What folders have brought in: the newest row is what the folders of all replicas should hold. A replica that starts with
-- a folder that was brought in before, and replaced since, has a stale one.
create table policy_publications (
    chain          text not null,
    content_sha256 text not null,
    revision       text not null,
    published_by   text not null,
    published_at   timestamptz not null default clock_timestamp(),
    primary key (chain, content_sha256)
);

-- What each replica runs, by its own word; a row that is not renewed belongs to a replica that is gone.
create table policy_replicas (
    replica      text not null,
    chain        text not null,
    version      text not null,
    generation   bigint not null,
    active       text,
    active_since timestamptz,
    canary       text,
    shadow       text,
    -- Why this replica does not run what the chain's row says.
    problem      text,
    -- Why this replica's folder is not used.
    folder       text,
    seen_at      timestamptz not null default now(),
    primary key (replica, chain)
);

-- Envelope encryption: data keys of people, wrapped under a key that is never in here.

-- The key-encryption keys this database was given, by id. The check value tells two keys of one id apart and nothing else.
create table encryption_keys (
    key_id        text primary key,
    check_value   bytea not null,
    first_seen_at timestamptz not null default now()
);

-- One data key per Page and person, made on first use. Deleting the row ends everything that it sealed. Leave this table's
-- data out of backups that are kept long, and keep only the latest copy of it.
create table person_keys (
    page_id     text not null,
    psid        text not null,
    key_id      text not null references encryption_keys (key_id),
    wrapped     bytea not null,
    created_at  timestamptz not null default now(),
    primary key (page_id, psid)
);
create index person_keys_by_key on person_keys (key_id);

-- The whole record of a decision, apart from its row: sealed under the person's data key, with a form beside it that people
-- may read, in which the words are replaced by their kind and length.
create table decision_records (
    turn_id     uuid primary key references decisions (turn_id) on delete cascade,
    version     int not null,
    sealed      bytea not null,
    masked      jsonb not null,
    created_at  timestamptz not null default now()
);
create index decision_records_by_time on decision_records (created_at);

alter table decisions
    -- Old rows keep their record here until the host has moved it to decision_records.
    alter column record drop not null,
    add column chain text,
    -- inline: in this row. pending: on its way after the commit. sealed: in decision_records. dropped: the writer could not
    -- keep up. lost: its process ended first. erased, expired: deleted on purpose.
    add column record_state text not null default 'inline'
        check (record_state in ('inline', 'pending', 'sealed', 'dropped', 'lost', 'erased', 'expired'));
create index decisions_record_open on decisions (created_at) where record_state in ('inline', 'pending');
create index decisions_with_record on decisions (created_at) where record_state in ('inline', 'sealed');
create index decisions_by_chain on decisions (chain, created_at, turn_id);

-- Work that one process at a time does, by name.
create table leases (
    name    text primary key,
    holder  text not null,
    until   timestamptz not null
);

-- Requests to forget a person: Meta's data deletion callback, or an operator's.

create table erasures (
    -- What the person is given to ask about it; random, says nothing.
    code          text primary key,
    source        text not null check (source in ('callback', 'operator')),
    state         text not null default 'queued' check (state in ('queued', 'done', 'failed')),
    -- Whom to forget, wrapped under this key-encryption key; gone when done.
    key_id        text references encryption_keys (key_id),
    subject       bytea,
    -- How many people (a person of two Pages counts twice) and rows were found.
    people        int not null default 0,
    rows_erased   bigint not null default 0,
    attempts      int not null default 0,
    not_before    timestamptz not null default now(),
    note          text,
    requested_by  text not null,
    requested_at  timestamptz not null default now(),
    done_at       timestamptz,
    check (state <> 'queued' or subject is not null)
);
create index erasures_queued on erasures (not_before) where state = 'queued';
create index erasures_by_time on erasures (requested_at desc);
-- Deleting a conversation takes its outbox along.
create index outbox_by_conversation on outbox (conversation_id);

-- People's words are sealed before they are stored. Sealed texts stand in their old columns and begin with U+0001; what stands
-- there otherwise was written by a version before this one, and is sealed in the background.

-- Data keys of the acknowledgement's path, which cannot wait for a key of each person: one per process, for some minutes. Whoever
-- reads an event seals it again under its person's key; a key that no event needs any more is deleted. Leave this table's data out of
-- backups, like that of person_keys.
create table inbox_keys (
    id          uuid primary key,
    key_id      text not null references encryption_keys (key_id),
    wrapped     bytea not null,
    created_at  timestamptz not null default now(),
    -- Nothing is stored under it from then on.
    used_until  timestamptz not null
);

alter table inbox
    -- Of an event that was stored by a version before this one, until it is sealed.
    alter column payload set default '{}',
    -- Sixteen bytes that name the key (an inbox_keys id, or zeros for the person's), then the sealed payload.
    add column sealed bytea;

-- Rows that are not sealed yet: empty once the background is through.
create index inbox_plain on inbox (id) where sealed is null and payload <> '{}'::jsonb;
create index messages_plain on messages (id)
    where (text <> '' and not starts_with(text, E'\x01')) or (payload <> '' and not starts_with(payload, E'\x01'));
create index outbox_plain on outbox (seq) where text <> '' and not starts_with(text, E'\x01');
create index tickets_plain on tickets (created_at) where summary <> '' and not starts_with(summary, E'\x01');

-- A ticket's transcript is read from the messages when it is asked for; a copy would be one more place to forget.
alter table tickets alter column transcript set default '[]';
update tickets set transcript = '[]' where transcript <> '[]'::jsonb;

-- A message's id has some hundred characters; its hash is enough to find it.
drop index inbox_mid;
create index inbox_mid on inbox using hash (mid) where mid is not null;

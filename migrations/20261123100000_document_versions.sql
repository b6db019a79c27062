-- What is kept of a document beside its passages: every version's raw file (in the object store) and what was taken out of
-- its text, both sealed under a data key of the version's own.

alter table documents
    add column version int not null default 1,
    -- Of the raw file and of everything that decides what becomes of it; '': stored before there was one.
    add column fingerprint text not null default '',
    -- How many pieces of personal data were replaced by placeholders.
    add column redacted int not null default 0;

create table document_versions (
    id            uuid primary key default gen_random_uuid(),
    document_id   uuid not null references documents (id) on delete cascade,
    version       int not null,
    object_key    text not null unique,
    raw_sha256    text not null,
    size_bytes    bigint not null,
    format        text not null,
    -- The data key, wrapped under the key-encryption key of this id.
    key_id        text not null,
    wrapped       bytea not null,
    -- Placeholder -> original, sealed; null: nothing was taken out.
    originals     bytea,
    created_by    text not null,
    created_at    timestamptz not null default now(),
    unique (document_id, version)
);
create index document_versions_key on document_versions (key_id);

-- Objects that nothing uses (any more, or yet), and when they are to be deleted.
create table object_garbage (
    object_key    text primary key,
    due_at        timestamptz not null
);
create index object_garbage_due on object_garbage (due_at);

-- However a version goes, its object follows.
create function document_versions_removed() returns trigger language plpgsql as $$
begin
    insert into object_garbage (object_key, due_at) select object_key, now() from removed
    on conflict (object_key) do update set due_at = excluded.due_at;
    return null;
end $$;
create trigger document_versions_removed after delete on document_versions
    referencing old table as removed for each statement execute function document_versions_removed();

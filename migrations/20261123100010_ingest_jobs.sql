-- Long work on knowledge: one file, or a website. A job survives the process that does it.

create table ingest_jobs (
    id            uuid primary key default gen_random_uuid(),
    kind          text not null check (kind in ('file', 'website')),
    state         text not null default 'queued' check (state in ('queued', 'running', 'done', 'failed', 'cancelled')),
    page_id       text,
    -- What the document is kept as, or the website's address.
    source        text not null,
    -- Title, format, language, labels, validity; or a website's limits.
    params        jsonb not null,
    -- The file, sealed in the object store, and its data key; null for a website, and once a version of a document has them.
    object_key    text unique,
    key_id        text,
    wrapped       bytea,
    stage         text not null default 'waiting',
    done          bigint not null default 0,
    total         bigint not null default 0,
    -- What came of it, or why nothing did.
    result        jsonb,
    error         text,
    -- Each process that takes the job counts one; an older one's word does not count any more.
    attempts      int not null default 0,
    worker        text,
    lease_until   timestamptz,
    not_before    timestamptz not null default now(),
    cancel_asked  boolean not null default false,
    created_by    text not null,
    created_at    timestamptz not null default now(),
    started_at    timestamptz,
    finished_at   timestamptz
);
create index ingest_jobs_open on ingest_jobs (created_at) where state in ('queued', 'running');
create index ingest_jobs_newest on ingest_jobs (created_at desc);
create index ingest_jobs_key on ingest_jobs (key_id) where key_id is not null;

-- A job that goes with its file still in hand gives the file up.
create function ingest_jobs_object_released() returns trigger language plpgsql as $$
begin
    if old.object_key is not null then
        insert into object_garbage (object_key, due_at)
        select old.object_key, now()
         where not exists (select 1 from document_versions v where v.object_key = old.object_key)
        on conflict (object_key) do update set due_at = excluded.due_at;
    end if;
    return null;
end $$;
create trigger ingest_jobs_removed after delete on ingest_jobs
    for each row execute function ingest_jobs_object_released();
create trigger ingest_jobs_object_dropped after update of object_key on ingest_jobs
    for each row when (old.object_key is distinct from new.object_key) execute function ingest_jobs_object_released();

-- What a website job knows of each address, so that a successor goes on where it stopped.
create table ingest_job_pages (
    job_id        uuid not null references ingest_jobs (id) on delete cascade,
    url           text not null,
    kind          text not null check (kind in ('sitemap', 'page')),
    depth         int not null,
    position      bigint generated always as identity,
    state         text not null default 'open' check (state in ('open', 'done')),
    outcome       text,
    note          text,
    document_id   uuid,
    bytes         bigint not null default 0,
    primary key (job_id, url)
);
create index ingest_job_pages_open on ingest_job_pages (job_id, kind, position) where state = 'open';

-- Documents that came from a website, and what its server said of them: the next visit asks whether they changed.
create table web_documents (
    document_id   uuid primary key references documents (id) on delete cascade,
    -- Scheme, host and port.
    site          text not null,
    url           text not null,
    etag          text,
    last_modified text,
    body_sha256   text not null,
    fetched_at    timestamptz not null default now()
);
create index web_documents_site on web_documents (site);

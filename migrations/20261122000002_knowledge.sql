-- What the Page knows. A document is replaced as a whole, by the hash of its content.

create table documents (
    id            uuid primary key default gen_random_uuid(),
    -- null: every Page of this host.
    page_id       text,
    -- Where it came from: a file name, an address, or a name given by the uploader. Unique per page scope.
    source        text not null,
    title         text not null,
    format        text not null check (format in ('text', 'markdown', 'html', 'csv-faq')),
    language      text,
    labels        text[] not null default '{}',
    valid_from    timestamptz,
    valid_until   timestamptz,
    content_hash  text not null,
    size_bytes    bigint not null,
    created_at    timestamptz not null default now(),
    updated_at    timestamptz not null default now()
);
create unique index documents_source on documents (coalesce(page_id, ''), source);

create table passages (
    id            uuid primary key default gen_random_uuid(),
    document_id   uuid not null references documents (id) on delete cascade,
    -- Copies of the document's columns that searches filter by, so that the filter sits inside the index scan.
    page_id       text,
    language      text,
    labels        text[] not null default '{}',
    valid_from    timestamptz,
    valid_until   timestamptz,
    position      int not null,
    heading       text not null default '',
    text          text not null,
    -- For an entry of a FAQ: the curated question. The passage's text is the answer.
    question      text,
    -- The question's folded words; a customer's question with the same key gets the curated answer.
    question_key  text,
    content_hash  text not null,
    -- Text search configuration of the passage's language ('simple' when Postgres has none).
    ts_config     regconfig not null,
    tsv           tsvector not null,
    embedding_model text,
    embedding     vector,
    unique (document_id, position)
);
create index passages_tsv on passages using gin (tsv);
create index passages_page on passages (page_id);
create index passages_question on passages (question_key) where question_key is not null;
create index passages_model on passages (embedding_model);
-- The vector index is made by the host, because its dimensions and model are settings: partial per model, on halfvec.

-- Vectors by content, so that re-uploading an unchanged text costs nothing.
create table embedding_cache (
    model         text not null,
    content_hash  text not null,
    embedding     vector not null,
    used_at       timestamptz not null default now(),
    primary key (model, content_hash)
);

-- In how many passages of a scope ('' is every Page) a lexeme occurs; the empty lexeme counts the passages themselves.
-- Search weighs the words of a question by it and keeps words that are everywhere out of the full-text scan.
-- Kept by the triggers below. A passage's text, scope and configuration are never updated, only inserted and deleted.
create table passage_lexemes (
    scope         text not null,
    ts_config     regconfig not null,
    lexeme        text not null,
    passages      bigint not null,
    primary key (scope, ts_config, lexeme)
);

create function passages_count_added() returns trigger language plpgsql as $$
begin
    insert into passage_lexemes as counted (scope, ts_config, lexeme, passages)
    select coalesce(p.page_id, ''), p.ts_config, l.lexeme, count(*)
      from added p
      cross join lateral (select unnest(tsvector_to_array(p.tsv)) union all select '') as l (lexeme)
     group by 1, 2, 3
     order by 1, 2, 3
    on conflict (scope, ts_config, lexeme) do update set passages = counted.passages + excluded.passages;
    return null;
end $$;

create function passages_count_removed() returns trigger language plpgsql as $$
begin
    with gone as (
        select coalesce(p.page_id, '') as scope, p.ts_config, l.lexeme, count(*) as passages
          from removed p
          cross join lateral (select unnest(tsvector_to_array(p.tsv)) union all select '') as l (lexeme)
         group by 1, 2, 3
    ), emptied as (
        delete from passage_lexemes c using gone g
         where (c.scope, c.ts_config, c.lexeme) = (g.scope, g.ts_config, g.lexeme) and c.passages <= g.passages
    )
    update passage_lexemes c set passages = c.passages - g.passages
      from gone g
     where (c.scope, c.ts_config, c.lexeme) = (g.scope, g.ts_config, g.lexeme) and c.passages > g.passages;
    return null;
end $$;

create trigger passages_added after insert on passages
    referencing new table as added for each statement execute function passages_count_added();
create trigger passages_removed after delete on passages
    referencing old table as removed for each statement execute function passages_count_removed();

-- A change of the embedding model: the new one's vectors are made beside the old one's, which serve until all are there.

alter table passages
    add column embedding_model_b text,
    add column embedding_b vector;
create index passages_model_b on passages (embedding_model_b);

-- Which model each of the two columns is for, and which of them serves searches.
create table embedding_models (
    slot          text primary key check (slot in ('a', 'b')),
    model         text not null,
    -- How the host makes its vectors; without secrets, which are named there and read elsewhere.
    settings      jsonb not null,
    serves        boolean not null,
    since         timestamptz not null default now()
);
create unique index embedding_models_serving on embedding_models (serves) where serves;

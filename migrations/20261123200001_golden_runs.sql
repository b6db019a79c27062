-- Runs of golden questions: the score over time, and what each question came to. Questions are the Page's own, not customers'.
create table golden_runs (
    id uuid primary key,
    at timestamptz not null default now(),
    -- Why it ran: run, knowledge or policy.
    occasion text not null,
    -- What changed, for people: a document's source, a revision.
    subject text not null default '',
    actor text not null default '',
    page_id text not null,
    chain text not null,
    revision text not null,
    passed integer not null,
    failed integer not null,
    -- Version and cases of the report.
    report jsonb not null
);

create index golden_runs_by_page on golden_runs (page_id, at desc);

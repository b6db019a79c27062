-- Answers of people that may become knowledge. Words are redacted and sealed before they are stored here; what a person approves becomes a
-- document, which outlives the conversation.
create table faq_proposals (
    id uuid primary key,
    created_at timestamptz not null default now(),
    page_id text not null,
    conversation_id uuid not null references conversations (id) on delete cascade,
    -- The agent whose reply it is.
    agent text not null,
    question text not null,
    -- SHA-256 of the folded question: tells whether it waits already.
    question_key text not null,
    answer text not null,
    language text,
    -- Source of the passage that comes nearest, and how well it fits the question.
    nearest_source text,
    nearest_score real not null default 0,
    state text not null default 'proposed' check (state in ('proposed', 'approved', 'rejected')),
    decided_by text,
    decided_at timestamptz,
    document_id uuid,
    -- The person who approved changed the words.
    edited boolean not null default false
);
create index faq_proposals_by_state on faq_proposals (state, created_at desc);
create unique index faq_proposals_once on faq_proposals (page_id, question_key) where state = 'proposed';

-- What customers thought of an answer (response_feedback); one verdict a message, the last one counts.
create table answer_feedback (
    conversation_id uuid not null references conversations (id) on delete cascade,
    mid text not null,
    verdict text not null,
    at timestamptz not null,
    primary key (conversation_id, mid)
);
create index answer_feedback_by_time on answer_feedback (at desc);

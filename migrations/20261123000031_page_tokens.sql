-- Pages connected while the host runs: their tokens, and what Meta says about them.

create sequence page_tokens_version;
create table page_tokens (
    page_id        text primary key references pages (page_id) on delete cascade,
    -- Wrapped under this key-encryption key.
    key_id         text not null references encryption_keys (key_id),
    sealed         bytea not null,
    -- App-scoped id of the person whose token it is: a deauthorisation names that person.
    user_id        text,
    connected_by   text not null,
    connected_at   timestamptz not null default now(),
    -- Changes with the token, so that every replica sees it.
    version        bigint not null default nextval('page_tokens_version')
);
create index page_tokens_by_user on page_tokens (user_id);

-- The latest look at each Page: `debug_token` and `subscribed_apps`.
create table page_health (
    page_id                 text primary key references pages (page_id) on delete cascade,
    checked_at              timestamptz not null,
    -- Null: Meta did not say.
    token_valid             boolean,
    token_user              text,
    token_error_subcode     bigint,
    expires_at              timestamptz,
    data_access_expires_at  timestamptz,
    scopes                  text[] not null default '{}',
    scopes_missing          text[] not null default '{}',
    fields                  text[] not null default '{}',
    fields_missing          text[] not null default '{}',
    -- What a person has to mend, or null.
    problem                 text
);
create index page_health_by_user on page_health (token_user);

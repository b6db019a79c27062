-- Where components came from, and who vouches for them. A component that was pulled from a registry once is in
-- policy_components like every other, so replicas and cold starts need no registry.

-- A manifest never changes: its digest is its name.
create table policy_artifacts (
    manifest_sha256  text primary key,
    manifest         bytea not null,
    -- registry/repository that it was pulled from first.
    repository       text not null,
    component_digest text not null references policy_components (digest),
    pulled_at        timestamptz not null default now()
);

-- Signatures as they were found beside a component, in a registry or beside a file. They prove nothing by standing here:
-- they are verified with the keys that are trusted at the time.
create table policy_signatures (
    component_digest text primary key references policy_components (digest),
    evidence         bytea not null,
    found_at         timestamptz not null default now()
);

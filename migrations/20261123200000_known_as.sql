-- A plugin names a person by a user_ref until Meta tells the PSID. The conversation that was begun under the first keeps its key; here
-- stands under which PSID the same person writes since.
alter table conversations add column known_as text;
create index conversations_known_as on conversations (page_id, known_as) where known_as is not null;

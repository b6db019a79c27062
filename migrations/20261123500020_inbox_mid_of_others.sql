-- A message's row is found by its dedupe_key, which is made of its id; only what else is about a message (echoes, edits, postbacks) is
-- looked up by its id. Without the messages themselves the index costs their acknowledgement nothing.
drop index inbox_mid;
create index inbox_mid on inbox using hash (mid) where mid is not null and kind <> 'message';

-- A message's row is found by its dedupe_key, which is made of its id: the second index cost every acknowledgement, and found what the first
-- finds. All else that is about a message (echoes, edits, postbacks) is still found by its id.
drop index inbox_mid;
create index inbox_mid on inbox using hash (mid) where mid is not null and kind <> 'message';

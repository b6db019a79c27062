-- The reply that a row is a part of: one turn's answer, or one request of a person. Parts leave in order, and none after one that
-- failed or is in doubt; turn_id alone cannot say this for what a person wrote.
alter table outbox add column reply_id uuid;

update outbox set reply_id = turn_id where state in ('queued', 'sending', 'unknown');

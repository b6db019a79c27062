-- Every matter of a ticket, oldest first: a second one on an open ticket is added, not merely counted. The columns priority (the
-- highest), reason and summary (the newest) stay for lists.
alter table tickets add column matters jsonb not null default '[]';

update tickets set matters = jsonb_build_array(jsonb_build_object(
    'at', created_at, 'turn_id', turn_id, 'priority', priority, 'reason', reason, 'summary', summary, 'tags', tags));

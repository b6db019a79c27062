-- The earlier messages that a turn was shown: whoever withdraws one withdraws it from the records of later turns too. Null: not
-- known, as in records made before this column, which may hold any of them.
alter table decisions add column history_mids text[];

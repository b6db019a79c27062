-- The masked form of a decision is compressed with every turn; lz4 takes a fraction of the time of pglz. A server that was built
-- without it keeps what it has.
do $$
begin
    alter table decision_records alter column masked set compression lz4;
exception when feature_not_supported then
    null;
end $$;

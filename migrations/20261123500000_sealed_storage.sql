-- Sealed bytes do not compress: trying costs the server time for every record.
alter table decision_records alter column sealed set storage external;
alter table inbox alter column sealed set storage external;

-- A CRM that was told about a person's tickets is told when that person is erased. The notice outlives the ticket, and names the
-- person sealed under a key-encryption key until it is delivered or given up.
alter table ticket_deliveries
    alter column ticket_id drop not null,
    drop constraint ticket_deliveries_event_check,
    add constraint ticket_deliveries_event_check
        check (event in ('ticket.opened', 'ticket.repeated', 'ticket.resolved', 'person.erased')),
    add column key_id text references encryption_keys (key_id),
    add column notice bytea,
    add constraint ticket_deliveries_about check (ticket_id is not null or event = 'person.erased');

-- The path of a message: inbox -> conversation -> decision -> outbox. One row of truth for each step.

create extension if not exists vector;

create table pages (
    page_id        text primary key,
    name           text not null,
    -- Folder name of the policy chain that judges this Page's turns.
    chain          text not null,
    time_zone      text not null,
    language       text not null,
    -- active: sends. parked: the token is dead, outbox waits for re-authorisation. stopped: Meta or an operator forbade sending.
    state          text not null default 'active' check (state in ('active', 'parked', 'stopped')),
    state_reason   text,
    state_since    timestamptz not null default now(),
    -- Set while Meta's usage headers or an error ask for a pause of the whole Page.
    paused_until   timestamptz
);

-- Everything Meta delivered and we answered with 200. Nothing is acknowledged that is not in here.
create table inbox (
    id             bigint generated always as identity primary key,
    page_id        text not null,
    -- Page-scoped id of the customer; null for events that belong to no conversation (policy enforcement, app roles).
    psid           text,
    channel        text not null check (channel in ('messaging', 'standby', 'changes', 'envelope')),
    kind           text not null,
    -- Meta repeats deliveries; the key makes the repetition a no-op. Scoped by page, kind and channel by its maker.
    dedupe_key     text not null unique,
    mid            text,
    -- An echo that shows a person (or another app) answering: checked by the outbox before a turn has even read it.
    is_takeover    boolean not null default false,
    event_at       timestamptz,
    received_at    timestamptz not null default now(),
    entry_time     timestamptz,
    payload        jsonb not null,
    state          text not null default 'pending' check (state in ('pending', 'done', 'failed')),
    -- How often a turn that included this event crashed or failed; a poison event ends in 'failed' and a ticket.
    attempts       int not null default 0,
    not_before     timestamptz,
    turn_id        uuid,
    done_at        timestamptz,
    note           text
);
create index inbox_pending on inbox (page_id, psid, id) where state = 'pending';
create index inbox_mid on inbox (page_id, psid, mid) where mid is not null;
create index inbox_done_at on inbox (done_at) where state <> 'pending';

create table conversations (
    id                 uuid primary key default gen_random_uuid(),
    page_id            text not null,
    psid               text not null,
    customer_name      text,
    customer_locale    text,
    profile_checked_at timestamptz,
    -- bot: turns may answer. human: a person took over. not_ours: another app owns the thread.
    state              text not null default 'bot' check (state in ('bot', 'human', 'not_ours')),
    state_reason       text,
    state_since        timestamptz not null default now(),
    -- Bumped by everything that takes the conversation away from (or gives it back to) the machine.
    -- An outbox row written under an older epoch is void.
    epoch              bigint not null default 0,
    -- The worker's lease, fenced: a worker whose lease_token is no longer this one cannot commit.
    lease_token        bigint not null default 0,
    lease_until        timestamptz,
    agent              text,
    window_opened_by   text,
    window_opened_at   timestamptz,
    window_closes_at   timestamptz,
    -- A click on an ad: the next message opens the long window.
    ad_click_at        timestamptz,
    automated_turns    int not null default 0,
    disclosed_at       timestamptz,
    disclosure_due     boolean not null default true,
    last_customer_at   timestamptz,
    last_reply_at      timestamptz,
    last_agent_at      timestamptz,
    created_at         timestamptz not null default now(),
    unique (page_id, psid)
);

create index conversations_latest on conversations ((coalesce(last_customer_at, created_at)) desc, id desc);

create table messages (
    id              bigint generated always as identity primary key,
    conversation_id uuid not null references conversations (id) on delete cascade,
    mid             text not null,
    author          text not null check (author in ('customer', 'bot', 'agent')),
    source          text not null default 'text',
    text            text not null default '',
    payload         text,
    attachments     text[] not null default '{}',
    sent_at         timestamptz not null,
    turn_id         uuid,
    outbox_id       uuid,
    edited_at       timestamptz,
    -- Unsent by the customer: the text is erased, the row stays so that order and counts add up.
    deleted_at      timestamptz,
    unique (conversation_id, mid)
);
create index messages_by_time on messages (conversation_id, sent_at, id);

-- One row per turn: what was decided and why. `record` is the whole story, versioned.
create table decisions (
    turn_id         uuid primary key,
    conversation_id uuid not null references conversations (id) on delete cascade,
    page_id         text not null,
    revision        text not null,
    route           text not null,
    outcome         text not null,
    confidence      real not null,
    reason          text not null,
    mids            text[] not null,
    record_version  int not null,
    record          jsonb not null,
    duration_us     bigint not null,
    created_at      timestamptz not null default now()
);
create index decisions_by_conversation on decisions (conversation_id, created_at);
create index decisions_by_time on decisions (created_at);
create index decisions_by_mid on decisions using gin (mids);

create table outbox (
    id              uuid primary key,
    conversation_id uuid not null references conversations (id) on delete cascade,
    page_id         text not null,
    psid            text not null,
    turn_id         uuid,
    -- Order of the parts of one reply, and of replies in a conversation.
    seq             bigint generated always as identity,
    epoch           bigint not null,
    author          text not null check (author in ('bot', 'agent')),
    agent           text,
    text            text not null,
    -- queued: waits. sending: claimed, the request may be on its way. unknown: nobody can tell whether Meta sent it
    -- (settled by an echo, by the conversations API, or by an agent). sent / failed / void are final.
    state           text not null default 'queued' check (state in ('queued', 'sending', 'unknown', 'sent', 'failed', 'void')),
    attempts        int not null default 0,
    not_before      timestamptz not null default now(),
    claimed_at      timestamptz,
    claimed_by      text,
    -- Since when Meta's record has been seen not to hold a message in doubt.
    absent_since    timestamptz,
    first_sent_at   timestamptz,
    message_id      text,
    error_code      int,
    error_subcode   int,
    error           text,
    settled_at      timestamptz,
    created_at      timestamptz not null default now(),
    check (author = 'bot' or agent is not null)
);
create index outbox_open on outbox (conversation_id, seq) where state in ('queued', 'sending', 'unknown');
create index outbox_due on outbox (not_before) where state = 'queued';
create index outbox_turn on outbox (turn_id);
create index outbox_failed on outbox (settled_at) where state = 'failed';
create unique index outbox_message_id on outbox (page_id, message_id) where message_id is not null;

create table tickets (
    id              uuid primary key default gen_random_uuid(),
    conversation_id uuid not null references conversations (id) on delete cascade,
    page_id         text not null,
    turn_id         uuid,
    state           text not null default 'open' check (state in ('open', 'resolved')),
    priority        text not null check (priority in ('low', 'normal', 'high', 'urgent')),
    reason          text not null,
    summary         text not null,
    tags            text[] not null default '{}',
    -- The messages up to now, as they stood when the ticket was opened.
    transcript      jsonb not null,
    -- Turns that would have opened another ticket while this one was open.
    repeats         int not null default 0,
    created_at      timestamptz not null default now(),
    updated_at      timestamptz not null default now(),
    resolved_at     timestamptz
);
create unique index tickets_one_open on tickets (conversation_id) where state = 'open';
create index tickets_by_time on tickets (created_at);
create index tickets_by_conversation on tickets (conversation_id, created_at desc);

-- Outgoing signed webhook for a CRM: written in the transaction that opens or changes the ticket.
create table ticket_deliveries (
    id          bigint generated always as identity primary key,
    ticket_id   uuid not null references tickets (id) on delete cascade,
    event       text not null check (event in ('ticket.opened', 'ticket.repeated', 'ticket.resolved')),
    state       text not null default 'queued' check (state in ('queued', 'delivered', 'failed')),
    attempts    int not null default 0,
    not_before  timestamptz not null default now(),
    claimed_until timestamptz,
    last_error  text,
    delivered_at timestamptz,
    created_at  timestamptz not null default now()
);
create index ticket_deliveries_by_ticket on ticket_deliveries (ticket_id);
create index ticket_deliveries_due on ticket_deliveries (not_before) where state = 'queued';

-- Who did what through the admin API or the command line. Never holds a customer's words.
create table audit_log (
    id         bigint generated always as identity primary key,
    at         timestamptz not null default now(),
    actor      text not null,
    action     text not null,
    subject    text not null,
    detail     jsonb not null default '{}'
);
create index audit_log_by_time on audit_log (at);

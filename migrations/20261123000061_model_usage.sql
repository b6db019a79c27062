-- Tokens that models used, so that all replicas keep to one budget. Days are those of UTC.

create table model_usage (
    day               date not null,
    page_id           text not null,
    model             text not null,
    calls             bigint not null,
    prompt_tokens     bigint not null,
    completion_tokens bigint not null,
    primary key (day, page_id, model)
);

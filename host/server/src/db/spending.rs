//! Table `model_usage`: tokens that models used, by day, Page and model.

use chrono::NaiveDate;
use sqlx::PgPool;

/// Tokens of one Page and of all Pages on a day.
pub async fn of_day(pool: &PgPool, day: NaiveDate, page_id: &str) -> sqlx::Result<(i64, i64)> {
    sqlx::query_as(
        "select coalesce(sum(prompt_tokens + completion_tokens) filter (where page_id = $2), 0)::bigint,
                coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint
           from model_usage where day = $1",
    )
    .bind(day)
    .bind(page_id)
    .fetch_one(pool)
    .await
}

pub async fn add(
    pool: &PgPool,
    day: NaiveDate,
    page_id: &str,
    model: &str,
    prompt_tokens: i64,
    completion_tokens: i64,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into model_usage as used (day, page_id, model, calls, prompt_tokens, completion_tokens)
         values ($1, $2, $3, 1, $4, $5)
         on conflict (day, page_id, model) do update
            set calls = used.calls + 1, prompt_tokens = used.prompt_tokens + excluded.prompt_tokens,
                completion_tokens = used.completion_tokens + excluded.completion_tokens",
    )
    .bind(day)
    .bind(page_id)
    .bind(model)
    .bind(prompt_tokens)
    .bind(completion_tokens)
    .execute(pool)
    .await?;
    Ok(())
}

//! Table `embedding_models`: which model each of the two columns of vectors is for, and which of them serves.

use sqlx::{PgExecutor, PgPool};

use crate::knowledge::Slot;

/// Key of the advisory lock under which the table changes.
const LOCK: i64 = 0x6b6e_6d6f_6465;

#[derive(Debug, Clone, sqlx::FromRow)]
struct Row {
    slot: String,
    model: String,
    settings: serde_json::Value,
    serves: bool,
}

/// A column's model.
#[derive(Debug, Clone)]
pub struct Model {
    pub slot: Slot,
    pub model: String,
    pub settings: serde_json::Value,
    pub serves: bool,
}

/// Until the end of the transaction nobody else changes the table.
pub async fn lock(db: impl PgExecutor<'_>) -> sqlx::Result<()> {
    sqlx::query("select pg_advisory_xact_lock($1)").bind(LOCK).execute(db).await?;
    Ok(())
}

pub async fn all(db: impl PgExecutor<'_>) -> sqlx::Result<Vec<Model>> {
    let rows: Vec<Row> =
        sqlx::query_as("select slot, model, settings, serves from embedding_models").fetch_all(db).await?;
    Ok(rows
        .into_iter()
        .map(|row| Model {
            slot: if row.slot == "b" { Slot::B } else { Slot::A },
            model: row.model,
            settings: row.settings,
            serves: row.serves,
        })
        .collect())
}

/// Says what a column is for. A column that serves goes on serving, with another model then.
pub async fn set(
    db: impl PgExecutor<'_>,
    slot: Slot,
    model: &str,
    settings: &serde_json::Value,
    serves: bool,
) -> sqlx::Result<()> {
    sqlx::query(
        "insert into embedding_models (slot, model, settings, serves) values ($1, $2, $3, $4)
         on conflict (slot) do update set model = $2, settings = $3, serves = $4,
            since = case when embedding_models.model = $2 then embedding_models.since else now() end",
    )
    .bind(slot.name())
    .bind(model)
    .bind(settings)
    .bind(serves)
    .execute(db)
    .await?;
    Ok(())
}

/// Lets this column serve, if it is still for this model. False: it is for another by now.
pub async fn switch(pool: &PgPool, slot: Slot, model: &str) -> sqlx::Result<bool> {
    let mut tx = pool.begin().await?;
    lock(&mut *tx).await?;
    let is_for: bool =
        sqlx::query_scalar("select exists (select 1 from embedding_models where slot = $1 and model = $2)")
            .bind(slot.name())
            .bind(model)
            .fetch_one(&mut *tx)
            .await?;
    if is_for {
        // One after the other: no two serve at any moment.
        for serves in [false, true] {
            sqlx::query("update embedding_models set serves = $2 where (slot = $1) = $2 and serves <> $2")
                .bind(slot.name())
                .bind(serves)
                .execute(&mut *tx)
                .await?;
        }
    }
    tx.commit().await?;
    Ok(is_for)
}

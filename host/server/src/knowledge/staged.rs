//! Knowledge with a change that nobody else sees yet.
//!
//! What is written and searched through [`Staged::knowledge`] happens inside one transaction (`db::staging`). It lives as long as
//! the questions take that are asked of it; another change of the same scope waits meanwhile.

use std::sync::Arc;

use sqlx::postgres::PgPool;

use super::{Knowledge, KnowledgeError};
use crate::db::lent::Connections;
use crate::db::staging;

/// See the module's documentation.
#[derive(Debug)]
pub struct Staged {
    pub knowledge: Arc<Knowledge>,
    pool: PgPool,
    transaction: String,
}

impl Staged {
    pub async fn begin(knowledge: &Knowledge) -> Result<Self, KnowledgeError> {
        let (pool, transaction) = staging::begin(&knowledge.pool).await?;
        let knowledge = Arc::new(Knowledge {
            pool: pool.clone(),
            connections: Connections::new(pool.clone()),
            ..knowledge.clone()
        });
        Ok(Self { knowledge, pool, transaction })
    }

    /// Makes the change for everybody.
    pub async fn commit(self) -> Result<(), KnowledgeError> {
        Ok(staging::commit(self.pool, &self.transaction).await?)
    }

    /// Takes the change back.
    pub async fn undo(self) -> Result<(), KnowledgeError> {
        Ok(staging::undo(self.pool).await?)
    }
}

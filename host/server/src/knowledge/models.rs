//! The embedding model that serves searches, and the one that is to serve.
//!
//! Passages have two columns for vectors. One serves: questions are embedded by its model and compared with it. When the
//! settings name another model, its vectors are made in the other column, in the background, while the first one serves;
//! when none is missing and its index stands, `embedding_models` says that it serves from now on, and each process follows.
//!
//! - The old model is built again from what the table kept of its settings. When it cannot be (its file is gone, its key
//!   is), the new one serves at once: full text finds what has no vector yet.
//! - A document that comes meanwhile gets the vectors of the model that serves; those of the other are made with the rest.
//! - Several replicas may do so at once; at worst they make some vectors twice.
//! - The old vectors stay until the next change of model writes over them, so a replica of an older release that
//!   still runs with the old settings finds what it knows.

use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use sqlx::PgPool;

use super::{EmbedError, Embedder, EmbeddingSettings, KnowledgeError, embedder};
use crate::db::embedding_models as db;
use crate::db::knowledge as passages;

/// One of the two columns of vectors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    A,
    B,
}

impl Slot {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// The column of the vectors.
    pub(crate) fn vector(self) -> &'static str {
        match self {
            Self::A => "embedding",
            Self::B => "embedding_b",
        }
    }

    /// The column that says which model made the vector.
    pub(crate) fn model(self) -> &'static str {
        match self {
            Self::A => "embedding_model",
            Self::B => "embedding_model_b",
        }
    }

    fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// A model and where its vectors are.
#[derive(Debug, Clone)]
pub(crate) struct Column {
    pub embedder: Arc<dyn Embedder>,
    pub slot: Slot,
}

/// Shared by all tasks of a process.
#[derive(Debug)]
pub(super) struct Models {
    serving: ArcSwap<Column>,
    building: ArcSwapOption<Column>,
}

impl Models {
    /// One model alone, in the first column.
    pub fn new(embedder: Arc<dyn Embedder>) -> Self {
        let column = Column { embedder, slot: Slot::A };
        Self { serving: ArcSwap::from_pointee(column), building: ArcSwapOption::empty() }
    }

    pub fn serving(&self) -> Arc<Column> {
        self.serving.load_full()
    }

    /// The column whose vectors are to be made: that of the model to come, else that of the one that serves.
    pub fn wanted(&self) -> Arc<Column> {
        self.building.load_full().unwrap_or_else(|| self.serving())
    }

    /// Finds what serves, and begins a change when the settings name another model.
    pub async fn settle(
        &self,
        pool: &PgPool,
        embedder: &Arc<dyn Embedder>,
        settings: &EmbeddingSettings,
    ) -> Result<(), KnowledgeError> {
        let json = serde_json::to_value(settings)
            .map_err(|error| EmbedError::Inference { reason: format!("the settings cannot be kept: {error}") })?;
        let wanted = embedder.model_id();
        let column = |slot| Column { embedder: Arc::clone(embedder), slot };
        let mut tx = pool.begin().await?;
        db::lock(&mut *tx).await?;
        let serving = db::all(&mut *tx).await?.into_iter().find(|model| model.serves);
        let (serving, building) = match serving {
            None => {
                db::set(&mut *tx, Slot::A, wanted, &json, true).await?;
                (column(Slot::A), None)
            }
            Some(old) if old.model == wanted => {
                db::set(&mut *tx, old.slot, wanted, &json, true).await?;
                (column(old.slot), None)
            }
            Some(old) => match self.old_embedder(pool, &old).await? {
                Some(embedder) => {
                    let slot = old.slot.other();
                    db::set(&mut *tx, slot, wanted, &json, false).await?;
                    tracing::info!(
                        serves = old.model,
                        makes = wanted,
                        "vectors of a new embedding model are made; the old one serves meanwhile"
                    );
                    (Column { embedder, slot: old.slot }, Some(column(slot)))
                }
                None => {
                    db::set(&mut *tx, old.slot, wanted, &json, true).await?;
                    (column(old.slot), None)
                }
            },
        };
        tx.commit().await?;
        self.building.store(building.map(Arc::new));
        self.serving.store(Arc::new(serving));
        Ok(())
    }

    /// The embedder of the model that serves, when there are vectors of it and it can still be had.
    async fn old_embedder(&self, pool: &PgPool, old: &db::Model) -> Result<Option<Arc<dyn Embedder>>, KnowledgeError> {
        if !passages::has_vectors(pool, old.slot, &old.model).await? {
            return Ok(None);
        }
        let settings: Option<EmbeddingSettings> = serde_json::from_value(old.settings.clone()).ok();
        let built = settings.map(|settings| tokio::task::spawn_blocking(move || embedder(&settings)));
        let built = match built {
            Some(task) => task.await.ok().and_then(Result::ok),
            None => None,
        };
        let built = built.filter(|embedder| embedder.model_id() == old.model);
        if built.is_none() {
            tracing::warn!(
                model = old.model,
                "the embedding model of the stored vectors cannot be loaded any more; until passages are embedded again, \
                 only full text finds them"
            );
        }
        Ok(built)
    }

    /// Lets the model to come serve. Called when none of its vectors is missing; does nothing when none is to come.
    pub async fn switch(&self, pool: &PgPool) -> Result<bool, KnowledgeError> {
        let Some(next) = self.building.load_full() else { return Ok(false) };
        passages::ensure_index(pool, next.slot, next.embedder.model_id(), next.embedder.dimensions()).await?;
        if !db::switch(pool, next.slot, next.embedder.model_id()).await? {
            return Ok(false);
        }
        tracing::info!(serves = next.embedder.model_id(), "a new embedding model serves");
        self.serving.store(next);
        self.building.store(None);
        Ok(true)
    }
}

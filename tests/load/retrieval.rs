//! Searches in many passages: how long they take, and what the vector index misses.
//!
//! The passages are made by [`corpus`]: product families with their own words, so that the vectors stand in clusters, as
//! those of a real shop do. A search is compared with the same search over connections that may not use index scans, which
//! leaves Postgres the exact order by distance.
//!
//! Beside the rows of a catalogue stand the long sections of a guide, which are cut into pieces. A search with a model that understands
//! meaning reads the pieces around each candidate too: those searches have rows of their own, without the model's own time.

use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use chrono::Utc;
use frontdesk_server::knowledge::{
    Calibration, EmbedError, Embedder, EmbeddingSettings, Format, Knowledge, NewDocument, Purpose, RetrievalSettings,
    SearchRequest, embedder,
};
use futures::future::BoxFuture;
use sqlx::postgres::{PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, PgConnection};
use uuid::Uuid;

use crate::Options;
use crate::corpus::{self, Question};
use crate::ground::{Ground, PAGE};
use crate::table::{Aim, Figure, Findings, Row, Times};

const MEASURE: &str = "retrieval";
/// Rows of one document.
const ROWS_PER_DOCUMENT: usize = 5_000;
/// Sections of one guide, and how many pieces each is cut into.
const SECTIONS_PER_GUIDE: usize = 100;
const PIECES_PER_SECTION: usize = 6;
/// Searches before the first that counts.
const WARM_UP: usize = 50;
const HITS: usize = 5;
/// Enough for the index of 100,000 vectors of 1,024 dimensions.
const BUILD_MEMORY: &str = "512MB";
/// Two distances closer than this are the same: `halfvec` has eleven bits.
const SAME_DISTANCE: f64 = 1e-6;

struct Size {
    /// Rows of the catalogue and pieces of the guides' sections.
    passages: usize,
    sections: usize,
    searches: usize,
    compared: usize,
}

impl Size {
    fn rows(&self) -> usize {
        self.passages - self.sections * PIECES_PER_SECTION
    }

    /// Behind those of the catalogue.
    fn numbers_of_sections(&self) -> Range<usize> {
        self.rows()..self.rows() + self.sections
    }
}

pub async fn measure(options: &Options) -> Result<Findings> {
    let size = if options.quick {
        Size { passages: 10_000, sections: 200, searches: 300, compared: 100 }
    } else {
        Size { passages: 100_000, sections: 2_000, searches: 2_000, compared: 200 }
    };
    let ground = Ground::new().await?;
    // Only the building of the index uses it: one that does not fit is built many times slower, and is searched alike.
    let roomy = ground.options().options([("maintenance_work_mem", BUILD_MEMORY)]);
    let pool = PgPoolOptions::new().max_connections(8).connect_with(roomy).await?;
    let exact_options = ground.options().options([("enable_indexscan", "off"), ("enable_indexonlyscan", "off")]);
    let exact_pool = PgPoolOptions::new().max_connections(2).connect_with(exact_options).await?;
    let embedder = embedder(&EmbeddingSettings::default())?;
    let settings = RetrievalSettings::default();
    let knowledge = Knowledge::new(pool.clone(), Arc::clone(&embedder), settings.clone())?;
    let exact = Knowledge::new(exact_pool.clone(), Arc::clone(&embedder), settings.clone())?;

    let mut findings = Findings::default();
    fill(&ground, &knowledge, &size, &mut findings).await?;
    let ask = |of: Range<usize>| -> Vec<Question> {
        (0..size.searches + WARM_UP).map(|number| corpus::question(number, of.clone())).collect()
    };
    let questions = ask(0..size.rows());
    let what = format!("search in {} passages", size.passages);
    searches(&knowledge, &what, &questions, &mut findings).await?;
    let meaning = Knowledge::new(pool.clone(), Arc::new(Understanding(Arc::clone(&embedder))), settings.clone())?;
    let what = format!("{what}, pieces beside them read");
    searches(&meaning, &what, &ask(size.numbers_of_sections()), &mut findings).await?;
    let compared = questions.get(..size.compared).context("there are fewer questions than comparisons")?;
    whole_search_recall(&knowledge, &exact, &size, compared, &mut findings).await?;
    let index = Index { pool: &pool, exact: &exact_pool, embedder: embedder.as_ref(), ef_search: settings.ef_search };
    index.recall(&size, compared, &mut findings).await?;
    pool.close().await;
    exact_pool.close().await;
    Ok(findings)
}

/// Loads the passages and then builds the index, which is how a large import is best done.
async fn fill(ground: &Ground, knowledge: &Knowledge, size: &Size, findings: &mut Findings) -> Result<()> {
    let began = Instant::now();
    for first in (0..size.rows()).step_by(ROWS_PER_DOCUMENT) {
        let rows = first..size.rows().min(first + ROWS_PER_DOCUMENT);
        let loaded = rows.end;
        knowledge
            .add(NewDocument {
                page_id: Some(PAGE.to_owned()),
                source: format!("catalogue-{first}.csv"),
                format: Some(Format::CsvFaq),
                bytes: corpus::csv(rows).into_bytes(),
                language: Some("en".to_owned()),
                ..NewDocument::default()
            })
            .await?;
        eprintln!("  {loaded} of {} passages after {:.0} s", size.passages, began.elapsed().as_secs_f64());
    }
    let sections = size.numbers_of_sections();
    for first in sections.clone().step_by(SECTIONS_PER_GUIDE) {
        let numbers = first..sections.end.min(first + SECTIONS_PER_GUIDE);
        knowledge
            .add(NewDocument {
                page_id: Some(PAGE.to_owned()),
                source: format!("guide-{first}.md"),
                format: Some(Format::Markdown),
                bytes: corpus::guide(numbers).into_bytes(),
                language: Some("en".to_owned()),
                ..NewDocument::default()
            })
            .await?;
    }
    let stored: i64 = sqlx::query_scalar("select count(*) from passages").fetch_one(&ground.pool).await?;
    if usize::try_from(stored)? != size.passages {
        bail!("{stored} passages are stored instead of {}: a section is cut into more or fewer pieces", size.passages);
    }
    let loaded = began.elapsed();
    knowledge.prepare().await?;
    sqlx::query("vacuum analyze").execute(&ground.pool).await?;
    let built = began.elapsed() - loaded;
    let bytes: i64 = sqlx::query_scalar("select pg_total_relation_size('passages')").fetch_one(&ground.pool).await?;
    findings.notes.push(format!(
        "{stored} passages, {} of them pieces of {} long sections, loaded in {:.0} s, indexed and vacuumed in {:.0} s; the table and its indexes have {} MiB",
        size.sections * PIECES_PER_SECTION,
        size.sections,
        loaded.as_secs_f64(),
        built.as_secs_f64(),
        bytes / (1 << 20)
    ));
    Ok(())
}

/// The same vectors, read as those of a model that understands meaning.
#[derive(Debug)]
struct Understanding(Arc<dyn Embedder>);

impl Embedder for Understanding {
    fn model_id(&self) -> &str {
        self.0.model_id()
    }

    fn dimensions(&self) -> usize {
        self.0.dimensions()
    }

    fn calibration(&self) -> Calibration {
        Calibration { understands_meaning: true, ..self.0.calibration() }
    }

    fn embed<'a>(&'a self, texts: &'a [String], purpose: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        self.0.embed(texts, purpose)
    }
}

fn request(question: &Question) -> SearchRequest {
    SearchRequest {
        page_id: Some(PAGE.to_owned()),
        query: question.text.clone(),
        language: Some("en".to_owned()),
        labels: Vec::new(),
        passage_languages: Vec::new(),
        limit: HITS,
        now: Utc::now(),
    }
}

async fn searches(knowledge: &Knowledge, what: &str, questions: &[Question], findings: &mut Findings) -> Result<()> {
    let mut micros = Vec::with_capacity(questions.len());
    let mut found = 0_u64;
    for (number, question) in questions.iter().enumerate() {
        let request = request(question);
        let started = Instant::now();
        let outcome = knowledge.search(request).await?;
        if number >= WARM_UP {
            micros.push(started.elapsed().as_secs_f64() * 1e6);
            let of_it = outcome
                .hits
                .iter()
                .any(|hit| hit.text.contains(&question.wanted) || hit.heading.contains(&question.wanted));
            found += u64::from(of_it);
        }
    }
    let times = Times::new(micros);
    findings.rows.push(Row::new(MEASURE, format!("{what}: median"), times.median_ms()));
    findings.rows.push(Row::new(MEASURE, format!("{what}: p99"), times.p99_ms()).aim(Aim::AtMost(20.0)));
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    let share = found as f64 / times.len().max(1) as f64;
    findings
        .notes
        .push(format!("{what}: what a question was made of is among the first {HITS} in {share:.3} of all searches"));
    Ok(())
}

/// Of the hits of the exact search, the share that the host's search gives too.
async fn whole_search_recall(
    knowledge: &Knowledge,
    exact: &Knowledge,
    size: &Size,
    questions: &[Question],
    findings: &mut Findings,
) -> Result<()> {
    let (mut shared, mut all) = (0_usize, 0_usize);
    let mut micros = Vec::new();
    for question in questions {
        let began = Instant::now();
        let expected = exact.search(request(question)).await?.hits;
        micros.push(began.elapsed().as_secs_f64() * 1e6);
        let found: HashSet<Uuid> =
            knowledge.search(request(question)).await?.hits.into_iter().map(|hit| hit.passage_id).collect();
        all += expected.len();
        shared += expected.iter().filter(|hit| found.contains(&hit.passage_id)).count();
    }
    let exact_times = Times::new(micros);
    findings.rows.push(
        Row::new(MEASURE, format!("recall@{HITS} of the whole search, {} passages", size.passages), share(shared, all))
            .against("exact search", Figure::Share(1.0))
            .aim(Aim::AtLeast(0.98)),
    );
    findings.notes.push(format!("the exact search: median {}, p99 {}", exact_times.median_ms(), exact_times.p99_ms()));
    Ok(())
}

/// The vector index alone, without full text: to know where a miss of the whole search comes from. No aim of its own.
struct Index<'a> {
    pool: &'a PgPool,
    exact: &'a PgPool,
    embedder: &'a dyn Embedder,
    ef_search: u32,
}

impl Index<'_> {
    async fn recall(&self, size: &Size, questions: &[Question], findings: &mut Findings) -> Result<()> {
        let (mut shared, mut all) = (0_usize, 0_usize);
        for question in questions {
            let vectors = self.embedder.embed(std::slice::from_ref(&question.text), Purpose::Query).await?;
            let vector = vectors.into_iter().next().context("the embedder gives no vector")?;
            let vector = serde_json::to_string(&vector)?;
            let expected = self.distances(&mut *self.exact.acquire().await?, &vector).await?;
            let found = self.distances(&mut *self.pool.acquire().await?, &vector).await?;
            // By distance, not by id: of passages that are equally far, either may be given.
            let farthest = expected.last().copied().unwrap_or(0.0) + SAME_DISTANCE;
            all += expected.len();
            shared += found.iter().filter(|distance| **distance <= farthest).count();
        }
        findings.rows.push(
            Row::new(
                MEASURE,
                format!("recall@{HITS} of the vector index, {} passages", size.passages),
                share(shared, all),
            )
            .against("exact search", Figure::Share(1.0)),
        );
        Ok(())
    }

    async fn distances(&self, connection: &mut PgConnection, vector: &str) -> Result<Vec<f64>> {
        let mut transaction = sqlx::Connection::begin(connection).await?;
        sqlx::query(
            "select set_config('hnsw.iterative_scan', 'strict_order', true), set_config('hnsw.ef_search', $1, true)",
        )
        .bind(self.ef_search.to_string())
        .execute(&mut *transaction)
        .await?;
        let (model, dimensions) = (self.embedder.model_id(), self.embedder.dimensions());
        let distance = format!("p.embedding::halfvec({dimensions}) <=> $1::text::vector::halfvec({dimensions})");
        let statement = format!(
            "select {distance} from passages p where p.embedding_model = '{model}' and (p.page_id is null or p.page_id = $2)
              order by {distance} limit {HITS}"
        );
        let found =
            sqlx::query_scalar(AssertSqlSafe(statement)).bind(vector).bind(PAGE).fetch_all(&mut *transaction).await?;
        transaction.rollback().await?;
        Ok(found)
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
fn share(part: usize, all: usize) -> Figure {
    Figure::Share(part as f64 / all.max(1) as f64)
}

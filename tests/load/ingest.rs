//! Documents on their way in: passages a second, memory, and what a process of its own costs each file.
//!
//! The floor is what no way in can avoid: the same texts and vectors, made already, written durably into a bare table
//! without any index. Everything above it (reading, redaction, cutting, embedding, full text, the counts of words, the vector
//! index, sealing the raw file) is the price of finding them again. Vectors are the deterministic hash's, so that the figure
//! is the pipeline's and not a model's.

use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result};
use frontdesk_server::knowledge::{
    EmbeddingSettings, ExtractionSettings, Format, Knowledge, NewDocument, Outcome, Purpose, RetrievalSettings,
    embedder,
};
use sqlx::postgres::PgPool;

use crate::Options;
use crate::corpus;
use crate::ground::{Ground, PAGE};
use crate::machine;
use crate::table::{Aim, Figure, Findings, Row, Times};

const MEASURE: &str = "ingest";
const ROWS_PER_DOCUMENT: usize = 1_000;
/// Rows of one statement of the floor; the host's own number.
const ROWS_PER_INSERT: usize = 500;

pub async fn measure(options: &Options) -> Result<Findings> {
    let (passages, pages) = if options.quick { (4_000, 10) } else { (20_000, 50) };
    let ground = Ground::new().await?;
    let embedder = embedder(&EmbeddingSettings::default())?;
    let program = std::env::current_exe()?.with_file_name("frontdesk");
    let knowledge = Knowledge::new(ground.pool.clone(), Arc::clone(&embedder), RetrievalSettings::default())?
        .with_extraction(ExtractionSettings { program, ..ExtractionSettings::default() })?;
    knowledge.prepare().await?;
    let documents: Vec<NewDocument> = (0..passages)
        .step_by(ROWS_PER_DOCUMENT)
        .map(|first| document(first..passages.min(first + ROWS_PER_DOCUMENT)))
        .collect();
    let bytes: usize = documents.iter().map(|document| document.bytes.len()).sum();

    let mut findings = Findings::default();
    let floor = bare_load(&ground.pool, passages, &knowledge).await?;
    machine::forget_peak_memory();
    let before = machine::resident_mib();
    let began = Instant::now();
    for document in &documents {
        let added = knowledge.add(document.clone()).await?;
        anyhow::ensure!(added.outcome == Outcome::Created, "a document of the benchmark was there already");
    }
    let ours = per_second(passages, began);
    let peak = machine::peak_resident_mib();
    let began = Instant::now();
    for document in &documents {
        if knowledge.add(document.clone()).await?.outcome != Outcome::Unchanged {
            findings.failures.push("an unchanged document was stored again".to_owned());
        }
    }
    let again = per_second(passages, began);
    let stored: i64 = sqlx::query_scalar("select count(*) from passages").fetch_one(&ground.pool).await?;
    if usize::try_from(stored)? != passages {
        findings.failures.push(format!("{stored} passages are stored, expected {passages}"));
    }
    findings.rows.push(
        Row::new(MEASURE, format!("{passages} passages, read to indexed"), Figure::PerSecond(ours))
            .against("bare durable load", Figure::PerSecond(floor)),
    );
    findings.rows.push(
        Row::new(MEASURE, "the same documents again, unchanged", Figure::PerSecond(again))
            .against("bare durable load", Figure::PerSecond(floor))
            .aim(Aim::RatioAtLeast(1.0)),
    );
    #[expect(clippy::cast_precision_loss, reason = "sizes here stay far below 2^52")]
    let text_mib = bytes as f64 / f64::from(1 << 20);
    findings.rows.push(
        Row::new(MEASURE, "memory that ingestion adds at its peak", Figure::Mebibytes((peak - before).max(0.0)))
            .against("the documents' bytes", Figure::Mebibytes(text_mib)),
    );
    findings.rows.push(pages_row(&knowledge, pages).await?);
    findings
        .notes
        .push(format!("vectors by hashing, {} dimensions; no model's time is in these figures", embedder.dimensions()));
    Ok(findings)
}

fn document(rows: std::ops::Range<usize>) -> NewDocument {
    NewDocument {
        page_id: Some(PAGE.to_owned()),
        source: format!("catalogue-{}.csv", rows.start),
        format: Some(Format::CsvFaq),
        bytes: corpus::csv(rows).into_bytes(),
        language: Some("en".to_owned()),
        ..NewDocument::default()
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
fn per_second(passages: usize, began: Instant) -> f64 {
    passages as f64 / began.elapsed().as_secs_f64().max(1e-6)
}

/// Rows of the same texts and vectors, a document's rows in one transaction, as the host does.
async fn bare_load(pool: &PgPool, passages: usize, knowledge: &Knowledge) -> Result<f64> {
    sqlx::query("create table bare (question text, answer text, embedding vector)").execute(pool).await?;
    let rows = csv_rows(&corpus::csv(0..passages));
    let texts: Vec<String> = rows.iter().map(|(question, answer)| format!("{question}\n{answer}")).collect();
    let mut vectors = Vec::with_capacity(texts.len());
    for part in texts.chunks(1_000) {
        vectors.extend(knowledge.embedder().embed(part, Purpose::Passage).await?);
    }
    let vectors: Vec<String> = vectors.iter().map(serde_json::to_string).collect::<Result<_, _>>()?;
    let began = Instant::now();
    for (rows, vectors) in rows.chunks(ROWS_PER_DOCUMENT).zip(vectors.chunks(ROWS_PER_DOCUMENT)) {
        let mut transaction = pool.begin().await?;
        for (rows, vectors) in rows.chunks(ROWS_PER_INSERT).zip(vectors.chunks(ROWS_PER_INSERT)) {
            sqlx::query("insert into bare select * from unnest($1::text[], $2::text[], $3::text[]::vector[])")
                .bind(rows.iter().map(|(question, _)| question.as_str()).collect::<Vec<_>>())
                .bind(rows.iter().map(|(_, answer)| answer.as_str()).collect::<Vec<_>>())
                .bind(vectors)
                .execute(&mut *transaction)
                .await?;
        }
        transaction.commit().await?;
    }
    let rate = per_second(passages, began);
    sqlx::query("drop table bare").execute(pool).await?;
    Ok(rate)
}

/// The rows of the corpus, whose fields hold neither quotes nor line breaks beyond the outer quotes.
fn csv_rows(text: &str) -> Vec<(String, String)> {
    text.lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(question, answer)| (question.trim_matches('"').to_owned(), answer.trim_matches('"').to_owned()))
        .collect()
}

/// Small web pages, each read by a process of its own, beside the same text as Markdown, which needs none.
async fn pages_row(knowledge: &Knowledge, pages: usize) -> Result<Row> {
    let mut times = [Vec::new(), Vec::new()];
    for page in 0..pages {
        let text = format!("Wheel number {page} fits forks of {} millimetres.", page * 3 + 90);
        let forms = [
            (Format::Html, format!("<html><body><h1>Wheels</h1><p>{text}</p></body></html>")),
            (Format::Markdown, format!("# Wheels\n\n{text} Written by hand.")),
        ];
        for ((format, bytes), times) in forms.into_iter().zip(&mut times) {
            let began = Instant::now();
            let document = NewDocument {
                source: format!("page-{page}.{format}"),
                format: Some(format),
                bytes: bytes.into_bytes(),
                ..NewDocument::default()
            };
            knowledge.add(document).await.context("a small page was refused")?;
            times.push(began.elapsed().as_secs_f64() * 1e6);
        }
    }
    let [html, markdown] = times.map(Times::new);
    Ok(Row::new(MEASURE, "a web page, read by a process of its own", html.median_ms())
        .against("the same as Markdown", markdown.median_ms()))
}

//! `frontdesk-bench eval --data PATH`: how well questions are answered on data that others made.
//!
//! The data is the user's: files and folders are recognised by their form ([`sets`]), and nothing of it is part of this
//! repository. Everything runs on the real search, on the Postgres of `DATABASE_URL`, with the embedding model of `--model-dir`
//! (`cargo xtask eval` provides all three).
//!
//! - [`finding`]: recall and reciprocal rank of the host's search, of BM25 and of plain vector search, on the same texts, in
//!   the same run. The host's search must not be worse than the better of the two.
//! - [`answering`]: questions whose passage is there and questions whose passage is withheld, answered by quotation and by a
//!   model that invents: what is refused, what is answered, and whether the answer holds what it should.
//! - [`sorting`]: spam and requests for a person, as the shipped classifier sorts them.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use frontdesk_server::knowledge::{Embedder, EmbeddingSettings, RetrievalSettings, embedder};
use serde::{Deserialize, Serialize};

mod answering;
mod bm25;
mod cache;
mod finding;
mod sets;
mod sorting;

use cache::Remembering;
use sets::Sets;

#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// File or folder of data; folders are walked.
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Folder with the embeddings.toml of a local model; without one, words are hashed.
    #[arg(long, value_name = "FOLDER", env = "FRONTDESK_MODEL_DIR")]
    model_dir: Option<PathBuf>,
    /// Only sets whose name contains this; may be given several times.
    #[arg(long, value_name = "TEXT")]
    only: Vec<String>,
    /// Most questions of one set, spread evenly over it.
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    questions: u32,
    /// Leave out the measure of answers and refusals, or that of spam and requests for a person.
    #[arg(long, value_name = "MEASURE", value_parser = ["finding", "answering", "sorting"])]
    skip: Vec<String>,
    /// Weight of full text instead of the model's own, to see what it does.
    #[arg(long, value_name = "0..1")]
    lexical_weight: Option<f32>,
    /// Also write the results as JSON, after each set.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Take what the file of --json holds already instead of measuring it again, as after a stop. What the program has changed
    /// since is not seen.
    #[arg(long, requires = "json")]
    resume: bool,
    /// Keep vectors in this folder from run to run; they are the most of an evaluation's time.
    #[arg(long, value_name = "FOLDER")]
    cache: Option<PathBuf>,
    /// Also write every candidate of every question with its signals, a line of JSON each.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// Everything, as `--json` writes it.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Report {
    /// Version of this form.
    version: u32,
    /// Id of the embedding model.
    model: String,
    /// Most questions of a set.
    questions: u32,
    finding: Vec<finding::Found>,
    answering: Vec<answering::Answered>,
    sorting: Vec<sorting::Sorted>,
    notes: Vec<String>,
}

/// False: the host's search was worse than a baseline somewhere, or an unsupported sentence was said.
pub async fn run(options: &Options) -> Result<bool> {
    let sets = sets::read(&options.data, &options.only)?;
    if sets.is_empty() {
        bail!("no data of a known form in {}; see the README for the forms that are known", options.data.display());
    }
    let model = Arc::new(Remembering::new(load(options.model_dir.as_deref())?, options.cache.as_deref())?);
    let mut report = Report::begin(options, model.model_id())?;
    println!("embedding model: {}", report.model);
    let wants = |measure: &str| !options.skip.iter().any(|skipped| skipped == measure);
    if wants("finding") && !sets.finding.is_empty() {
        find(options, &sets, &model, &mut report).await?;
    }
    if wants("answering") && !sets.reading.is_empty() {
        answer(options, &sets, &model, &mut report).await?;
    }
    if wants("sorting") && !sets.sorting.is_empty() {
        println!("{}", sorting::HEAD);
        report.sorting = sorting::measure(&sets.sorting).await?;
        report.sorting.iter().for_each(|sorted| println!("{sorted}"));
        println!();
    }
    report.keep(options)?;
    let behind: Vec<&str> =
        report.finding.iter().filter(|found| !found.is_level()).map(|found| found.set.as_str()).collect();
    if !behind.is_empty() {
        println!("behind the better baseline on: {}", behind.join(", "));
    }
    Ok(behind.is_empty() && report.answering.iter().all(|answered| answered.invented_said == 0))
}

impl Report {
    /// An empty one, or what an earlier run with the same model and as many questions has measured.
    fn begin(options: &Options, model: &str) -> Result<Self> {
        let fresh = Self { version: 2, model: model.to_owned(), questions: options.questions, ..Self::default() };
        let Some(file) = options.json.as_deref().filter(|file| options.resume && file.exists()) else {
            return Ok(fresh);
        };
        let json = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
        let before: Self =
            serde_json::from_slice(&json).with_context(|| format!("{} holds no evaluation", file.display()))?;
        let is_alike =
            (before.version, &before.model, before.questions) == (fresh.version, &fresh.model, fresh.questions);
        anyhow::ensure!(is_alike, "{} was measured in another way: leave --resume out", file.display());
        Ok(before)
    }

    fn keep(&self, options: &Options) -> Result<()> {
        let Some(file) = &options.json else { return Ok(()) };
        let json = serde_json::to_string_pretty(self)?;
        std::fs::write(file, json).with_context(|| format!("{} could not be written", file.display()))
    }
}

async fn answer(options: &Options, sets: &Sets, model: &Arc<Remembering>, report: &mut Report) -> Result<()> {
    println!("{}", answering::HEAD);
    for set in &sets.reading {
        let known = report.answering.iter().position(|answered| answered.set == set.name);
        let answered = match known.map(|at| report.answering.remove(at)) {
            Some(before) => before,
            None => answering::measure(set, model, options).await?,
        };
        println!("{answered}");
        report.answering.push(answered);
        report.keep(options)?;
    }
    println!();
    Ok(())
}

async fn find(options: &Options, sets: &Sets, model: &Arc<Remembering>, report: &mut Report) -> Result<()> {
    let mut trace = match &options.trace {
        Some(path) => Some(std::io::BufWriter::new(
            std::fs::File::create(path).with_context(|| format!("{} cannot be written", path.display()))?,
        )),
        None => None,
    };
    println!("{}", finding::HEAD);
    for set in &sets.finding {
        let began = Instant::now();
        let known = report.finding.iter().position(|found| found.set == set.name);
        let found = match known.map(|at| report.finding.remove(at)) {
            Some(before) => before,
            None => finding::measure(set, model, options, trace.as_mut()).await?,
        };
        println!("{found}");
        eprintln!("  {} took {:.0} s", set.name, began.elapsed().as_secs_f64());
        report.finding.push(found);
        report.keep(options)?;
    }
    println!("{}\n", finding::mean(&report.finding));
    Ok(())
}

fn load(folder: Option<&Path>) -> Result<Arc<dyn Embedder>> {
    let setting = match folder {
        None => EmbeddingSettings::default(),
        Some(folder) => {
            let path = folder.join("embeddings.toml");
            let text = std::fs::read_to_string(&path).with_context(|| format!("{} cannot be read", path.display()))?;
            let table: toml::Table = text.parse()?;
            let setting = table.get("embeddings").context("embeddings.toml has no [embeddings]")?;
            setting.clone().try_into()?
        }
    };
    Ok(embedder(&setting)?)
}

fn retrieval_settings(options: &Options) -> RetrievalSettings {
    RetrievalSettings { lexical_weight: options.lexical_weight, ..RetrievalSettings::default() }
}

/// `most` of the items, spread evenly over all.
fn spread<T>(items: &[T], most: usize) -> Vec<&T> {
    let step = items.len().div_ceil(most.max(1)).max(1);
    items.iter().step_by(step).collect()
}

#[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
fn share(part: usize, all: usize) -> f64 {
    part as f64 / all.max(1) as f64
}

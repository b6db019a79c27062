//! `frontdesk knowledge`: documents in and out of a running host.

use std::path::{Component, Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::Value;
use uuid::Uuid;

use super::jobs;
use super::multipart::Form;
use super::{AdminClient, Failure, Outcome, Remote, complain, one_line, say};
use crate::knowledge::{FILE_BYTES_MAX, format_from_name};

/// Most files that one call uploads.
const FILES_MAX: usize = 10_000;
/// Deepest folder that is walked.
const DEPTH_MAX: usize = 16;

#[derive(Debug, Subcommand)]
pub enum KnowledgeCommand {
    /// Add files, or replace those with the same name. Folders are walked; links in them are not followed.
    Add(Add),
    /// Read a website by its sitemaps; what has not changed since the last visit is not read again.
    Website(jobs::Website),
    /// How far long jobs are; with an id, one of them and what came of it.
    Jobs {
        #[arg(value_name = "JOB_ID")]
        id: Option<Uuid>,
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Stop a job; what it has stored stays.
    Cancel {
        #[arg(value_name = "JOB_ID")]
        id: Uuid,
        #[command(flatten)]
        remote: Remote,
    },
    /// List the documents.
    List {
        /// Only what this Page may use.
        #[arg(long, value_name = "PAGE_ID")]
        page: Option<String>,
        /// Print the host's answer as JSON.
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        remote: Remote,
    },
    /// Delete documents by their ids.
    Delete {
        #[arg(required = true, value_name = "DOCUMENT_ID")]
        ids: Vec<Uuid>,
        #[command(flatten)]
        remote: Remote,
    },
    /// Show what a question finds, and why each passage stands where it does.
    Search(Search),
}

#[derive(Debug, Args)]
pub struct Search {
    #[arg(required = true)]
    question: Vec<String>,
    /// What this Page may use; by default all there is.
    #[arg(long, value_name = "PAGE_ID")]
    page: Option<String>,
    /// Language of the question (ISO 639-1); by default it is detected.
    #[arg(long)]
    language: Option<String>,
    /// Most passages.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u8).range(1..=50))]
    limit: u8,
    /// Print the host's answer as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    remote: Remote,
}

#[derive(Debug, Args)]
pub struct Add {
    /// Text, Markdown, HTML, PDF, Word, Excel, PowerPoint or CSV (question,answer) files, and folders of them.
    #[arg(required = true)]
    paths: Vec<PathBuf>,
    /// For this Page only; by default every Page of the host may use it.
    #[arg(long, value_name = "PAGE_ID")]
    page: Option<String>,
    /// Language (ISO 639-1); by default it is detected per passage.
    #[arg(long)]
    language: Option<String>,
    /// A label; may be given several times.
    #[arg(long = "label", value_name = "LABEL")]
    labels: Vec<String>,
    /// text, markdown, html, csv-faq, pdf, docx, xlsx or pptx; by default by the file's ending.
    #[arg(long)]
    format: Option<String>,
    /// Title of the document, when it is one file.
    #[arg(long)]
    title: Option<String>,
    /// Name under which the document is kept, when it is one file; by default the path as given.
    #[arg(long)]
    source: Option<String>,
    /// Not used before this time (RFC 3339).
    #[arg(long)]
    valid_from: Option<String>,
    /// Not used from this time on (RFC 3339).
    #[arg(long)]
    valid_until: Option<String>,
    /// Do not wait until the files are read; `frontdesk knowledge jobs` shows how far they are.
    #[arg(long)]
    no_wait: bool,
    #[command(flatten)]
    remote: Remote,
}

pub async fn run(command: KnowledgeCommand) -> Outcome {
    match command {
        KnowledgeCommand::Add(options) => add(options).await,
        KnowledgeCommand::Website(options) => jobs::website(&options).await,
        KnowledgeCommand::Jobs { id, json, remote } => jobs::show(&AdminClient::new(&remote)?, id, json).await,
        KnowledgeCommand::Cancel { id, remote } => {
            AdminClient::new(&remote)?.post(&["knowledge", "jobs", &id.to_string(), "cancel"]).await?;
            say(&format!("cancelled  {id}"))
        }
        KnowledgeCommand::List { page, json, remote } => {
            let query: Vec<(&str, &str)> = page.iter().map(|page| ("page_id", page.as_str())).collect();
            let answer = AdminClient::new(&remote)?.get(&["knowledge"], &query).await?;
            if json { say_json(&answer) } else { show_list(&answer) }
        }
        KnowledgeCommand::Delete { ids, remote } => delete(&ids, &remote).await,
        KnowledgeCommand::Search(options) => search(&options).await,
    }
}

pub async fn search(options: &Search) -> Outcome {
    let (question, limit) = (options.question.join(" "), options.limit.to_string());
    let mut query = vec![("q", question.as_str()), ("limit", limit.as_str())];
    query.extend(options.page.iter().map(|page| ("page_id", page.as_str())));
    query.extend(options.language.iter().map(|language| ("language", language.as_str())));
    let answer = AdminClient::new(&options.remote)?.get(&["knowledge", "search"], &query).await?;
    if options.json { say_json(&answer) } else { show_hits(&answer) }
}

async fn add(options: Add) -> Outcome {
    let files = collect(&options.paths)?;
    if files.len() > 1 && (options.title.is_some() || options.source.is_some()) {
        let problem = format!("--title and --source are for one file, and {} were found", files.len());
        return Err(Failure::Usage(problem));
    }
    let client = AdminClient::new(&options.remote)?;
    let mut failed = 0_usize;
    for file in &files {
        match upload(&client, &options, file).await {
            Ok(job) if options.no_wait => {
                say(&format!("queued     {}  {}", job["job_id"].as_str().unwrap_or_default(), file.source))?;
            }
            Ok(job) => {
                let answer = match jobs::wait(&client, &job, &file.source).await {
                    Ok(answer) => answer,
                    Err(Failure::Failed(message)) => {
                        failed += 1;
                        complain(&format!("{}: {message}", file.path.display()));
                        continue;
                    }
                    Err(other) => return Err(other),
                };
                let outcome = answer["outcome"].as_str().unwrap_or("done");
                let passages = answer["passages"].as_u64().unwrap_or_default();
                say(&format!("{outcome:<9}  {passages:>5} passages  {}", file.source))?;
            }
            Err(Failure::Failed(message) | Failure::Usage(message)) => {
                failed += 1;
                complain(&format!("{}: {message}", file.path.display()));
            }
            Err(Failure::Shown) => return Err(Failure::Shown),
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!("{failed} of {} files were not added", files.len()))),
    }
}

async fn upload(client: &AdminClient, options: &Add, file: &Found) -> Result<Value, Failure> {
    let unreadable = |error: std::io::Error| Failure::failed(format!("it cannot be read: {error}"));
    let bytes_found = tokio::fs::metadata(&file.path).await.map_err(unreadable)?.len();
    if bytes_found > FILE_BYTES_MAX as u64 {
        let problem = format!("it has {bytes_found} bytes, at most {FILE_BYTES_MAX} are taken: split it");
        return Err(Failure::Failed(problem));
    }
    let bytes = tokio::fs::read(&file.path).await.map_err(unreadable)?;
    let source = options.source.as_deref().unwrap_or(&file.source);
    let mut form = Form::new();
    form.text("source", source);
    let given = [
        ("title", &options.title),
        ("page_id", &options.page),
        ("language", &options.language),
        ("format", &options.format),
        ("valid_from", &options.valid_from),
        ("valid_until", &options.valid_until),
    ];
    for (name, value) in given {
        if let Some(value) = value {
            form.text(name, value);
        }
    }
    for label in &options.labels {
        form.text("labels", label);
    }
    form.file("file", source, &bytes);
    client.upload(&["knowledge", "jobs", "file"], form).await
}

async fn delete(ids: &[Uuid], remote: &Remote) -> Outcome {
    let client = AdminClient::new(remote)?;
    let mut failed = 0_usize;
    for id in ids {
        match client.delete(&["knowledge", &id.to_string()]).await {
            Ok(_) => say(&format!("deleted  {id}"))?,
            Err(Failure::Failed(message) | Failure::Usage(message)) => {
                failed += 1;
                complain(&message);
            }
            Err(Failure::Shown) => return Err(Failure::Shown),
        }
    }
    match failed {
        0 => Ok(()),
        _ => Err(Failure::Failed(format!("{failed} of {} documents were not deleted", ids.len()))),
    }
}

/// A file to upload.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    path: PathBuf,
    /// The name under which it is kept.
    source: String,
}

/// The files that the arguments name: files as they are, folders walked for the formats that are known.
fn collect(paths: &[PathBuf]) -> Result<Vec<Found>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        let unreadable = |error| Failure::usage(format!("{}: {error}", path.display()));
        let name = source_name(path);
        if std::fs::metadata(path).map_err(unreadable)?.is_dir() {
            let before = files.len();
            walk(path, &name, 0, &mut files)?;
            if files.len() == before {
                let problem = format!(
                    "{}: no file in it ends in .txt, .md, .html, .csv, .pdf, .docx, .xlsx or .pptx",
                    path.display()
                );
                return Err(Failure::Usage(problem));
            }
        } else {
            files.push(Found { path: path.clone(), source: name });
        }
    }
    Ok(files)
}

fn walk(dir: &Path, name: &str, depth: usize, files: &mut Vec<Found>) -> Result<(), Failure> {
    let unreadable = |error: std::io::Error| Failure::usage(format!("{}: {error}", dir.display()));
    if depth > DEPTH_MAX {
        return Err(Failure::usage(format!("{}: folders are nested deeper than {DEPTH_MAX}", dir.display())));
    }
    let mut entries = std::fs::read_dir(dir).map_err(unreadable)?.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    // The same order on every machine.
    entries.sort_by_key(std::fs::DirEntry::file_name);
    for entry in entries {
        let file_name = entry.file_name().to_string_lossy().into_owned();
        if file_name.starts_with('.') {
            continue;
        }
        let source = if name.is_empty() { file_name.clone() } else { format!("{name}/{file_name}") };
        let kind = entry.file_type().map_err(unreadable)?;
        if kind.is_dir() {
            walk(&entry.path(), &source, depth + 1, files)?;
        } else if kind.is_file() && format_from_name(&file_name).is_some() {
            if files.len() >= FILES_MAX {
                return Err(Failure::usage(format!("more than {FILES_MAX} files; add folder by folder")));
            }
            files.push(Found { path: entry.path(), source });
        }
    }
    Ok(())
}

/// The name of a document by the path that was given: relative paths as they are; of others, which say more about the
/// machine than about the document, the last part.
fn source_name(path: &Path) -> String {
    let parts: Vec<_> = path.components().filter(|part| *part != Component::CurDir).collect();
    let is_plain = parts.iter().all(|part| matches!(part, Component::Normal(_)));
    let kept = if is_plain { &parts[..] } else { parts.split_at(parts.len().saturating_sub(1)).1 };
    let kept = kept.iter().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_string_lossy()),
        _ => None,
    });
    kept.collect::<Vec<_>>().join("/")
}

pub(super) fn say_json(answer: &Value) -> Outcome {
    say(&format!("{answer:#}"))
}

fn show_list(answer: &Value) -> Outcome {
    for document in answer["documents"].as_array().into_iter().flatten() {
        let field = |key: &str, max| one_line(document[key].as_str().unwrap_or_default(), max);
        let page = match document["page_id"].as_str() {
            Some(page) => one_line(page, 20),
            None => "every Page".to_owned(),
        };
        say(&format!(
            "{}  {:>5} passages  {page:<16}  {}  ({})",
            field("document_id", 36),
            document["passages"].as_i64().unwrap_or_default(),
            field("source", 80),
            field("title", 80),
        ))?;
    }
    Ok(())
}

fn show_hits(answer: &Value) -> Outcome {
    let hits = answer["hits"].as_array().map(Vec::as_slice).unwrap_or_default();
    if hits.is_empty() {
        return say("nothing fits");
    }
    for hit in hits {
        let field = |key: &str, max| one_line(hit[key].as_str().unwrap_or_default(), max);
        let score = |key: &str| hit[key].as_f64().unwrap_or_default();
        say(&format!(
            "score {:.3}  vector {:.3}  lexical {:.3}{}  {}  {}",
            score("score"),
            score("vector_score"),
            score("lexical_score"),
            if hit["exact"].as_bool().unwrap_or_default() { "  curated" } else { "" },
            field("source", 80),
            field("heading", 80),
        ))?;
        say(&format!("    {}", why(&hit["why"])))?;
        say(&format!("    {}", field("text", 200)))?;
    }
    Ok(())
}

/// Why a hit stands where it stands: what is added up, in deviations from the mean of all candidates.
fn why(why: &Value) -> String {
    let number = |key: &str| why[key].as_f64().unwrap_or_default();
    let mut text = format!(
        "rank {:+.2} = {:.2} x nearness {:+.2} + {:.2} x words {:+.2}",
        number("fused"),
        1.0 - number("weight"),
        number("vector"),
        number("weight"),
        number("words")
    );
    if number("near_duplicate") > 0.005 {
        text.push_str(&format!(" - like a better hit {:.2}", number("near_duplicate")));
    }
    if why["foreign"].as_bool().unwrap_or_default() {
        text.push_str(" (another language: its words count half)");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_named_by_what_was_asked_for() {
        let cases = [
            ("faq.md", "faq.md"),
            ("./docs/faq.md", "docs/faq.md"),
            ("docs/", "docs"),
            ("/home/ana/shop/faq.md", "faq.md"),
            ("../shop/faq.md", "faq.md"),
            (".", ""),
            ("..", ""),
            ("/", ""),
        ];
        for (path, expected) in cases {
            assert_eq!(source_name(Path::new(path)), expected, "{path}");
        }
    }

    #[test]
    fn folders_are_walked_in_order_and_only_for_known_formats() {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["docs/b", "docs/.git", "docs/empty"] {
            std::fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for file in ["docs/z.md", "docs/a.csv", "docs/b/x.html", "docs/photo.png", "docs/.git/x.md"] {
            std::fs::write(dir.path().join(file), "x").unwrap();
        }
        std::os::unix::fs::symlink("/etc", dir.path().join("docs/link")).unwrap();
        let found = collect(&[dir.path().join("docs")]).unwrap();
        let sources: Vec<&str> = found.iter().map(|file| file.source.as_str()).collect();
        assert_eq!(sources, ["docs/a.csv", "docs/b/x.html", "docs/z.md"]);
        assert!(matches!(collect(&[dir.path().join("docs/empty")]), Err(Failure::Usage(_))));
        assert!(matches!(collect(&[dir.path().join("none")]), Err(Failure::Usage(_))));
        // A file that is named is uploaded whatever it is called; the host says what it thinks of it.
        assert_eq!(collect(&[dir.path().join("docs/photo.png")]).unwrap().len(), 1);
    }

    #[test]
    fn folders_nested_too_deep_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let at_limit = (0..DEPTH_MAX).fold(dir.path().to_owned(), |path, _| path.join("d"));
        std::fs::create_dir_all(&at_limit).unwrap();
        std::fs::write(at_limit.join("a.md"), "x").unwrap();
        assert_eq!(collect(&[dir.path().to_owned()]).unwrap().len(), 1);
        std::fs::create_dir(at_limit.join("d")).unwrap();
        assert!(collect(&[dir.path().to_owned()]).is_err());
    }
}

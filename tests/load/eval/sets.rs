//! Data that others made, by its form:
//!
//! | form | becomes |
//! |---|---|
//! | `NAME.LANG.json` as SQuAD has it (`data[].paragraphs[].{context, qas[]}`) | questions on their paragraphs, and with another language's file of the same question ids: on its paragraphs |
//! | `NAME_train.csv` with `NAME_test.csv`, columns `text,category` | test questions find training questions of their category |
//! | JSON with `train`, `test` (pairs of text and intent) and perhaps `oos_test` | the same |
//! | folders of HTML whose sections have headings with ids | headings find the text under them; and across folders of other languages with the same ids |
//! | CSV or TSV with the columns `text,label`, labels `spam`, `ham`, `person`, `other` | what the classifier should make of it |
//! | JSON files with `group` (`spam-…`, `…ham…`) and `text` of a mail | the same |

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::Value;

/// Training questions of a category that are made passages.
const EXAMPLES: usize = 3;
const FILES_MAX: usize = 50_000;
const FILE_BYTES_MAX: u64 = 64 << 20;
/// Sections shorter than this hold no answer.
const SECTION_CHARACTERS_MIN: usize = 30;
/// Mails of one group.
const MAILS_MAX: usize = 300;

#[derive(Debug, Clone)]
pub struct Passage {
    pub key: String,
    pub text: String,
}

#[derive(Debug, Clone)]
pub struct Question {
    pub text: String,
    /// Keys of the passages that answer it.
    pub wanted: HashSet<String>,
    /// What an answer must hold, where the data says so.
    pub answers: Vec<String>,
}

/// Questions on passages.
#[derive(Debug, Clone)]
pub struct FindingSet {
    pub name: String,
    /// Of the passages; `None`: not known.
    pub language: Option<String>,
    pub passages: Vec<Passage>,
    pub questions: Vec<Question>,
}

/// Paragraphs by article: half of the articles can be withheld.
#[derive(Debug, Clone)]
pub struct ReadingSet {
    pub name: String,
    pub articles: Vec<(Vec<Passage>, Vec<Question>)>,
}

/// What somebody wrote, and whether it is spam or asks for a person.
#[derive(Debug, Clone)]
pub struct SortingSet {
    pub name: String,
    /// Text and label: `spam`, `person`, or anything else.
    pub messages: Vec<(String, String)>,
}

#[derive(Debug, Default)]
pub struct Sets {
    pub finding: Vec<FindingSet>,
    pub reading: Vec<ReadingSet>,
    pub sorting: Vec<SortingSet>,
}

impl Sets {
    pub fn is_empty(&self) -> bool {
        self.finding.is_empty() && self.reading.is_empty() && self.sorting.is_empty()
    }
}

pub fn read(path: &Path, only: &[String]) -> Result<Sets> {
    let mut files = Vec::new();
    walk(path, &mut files, 0)?;
    files.sort();
    let mut sets = Sets::default();
    let mut squads: Vec<(String, Option<String>, Value)> = Vec::new();
    let mut mails: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
    let mut pages: BTreeMap<PathBuf, Vec<PathBuf>> = BTreeMap::new();
    for file in &files {
        match file.extension().and_then(|ending| ending.to_str()) {
            Some("json") => read_json(file, &mut sets, &mut squads, &mut mails)?,
            Some("csv" | "tsv") => read_table(file, &mut sets)?,
            Some("html" | "htm") => {
                pages.entry(file.parent().unwrap_or(path).to_owned()).or_default().push(file.clone());
            }
            _ => {}
        }
    }
    squad_sets(&squads, &mut sets);
    section_sets(&pages, &mut sets)?;
    if !mails.is_empty() {
        sets.sorting.push(SortingSet { name: "mails".to_owned(), messages: mails.into_values().flatten().collect() });
    }
    let wanted = |name: &str| only.is_empty() || only.iter().any(|part| name.contains(part));
    sets.finding.retain(|set| wanted(&set.name));
    sets.reading.retain(|set| wanted(&set.name));
    sets.sorting.retain(|set| wanted(&set.name));
    Ok(sets)
}

fn walk(path: &Path, files: &mut Vec<PathBuf>, depth: usize) -> Result<()> {
    let about = std::fs::metadata(path).with_context(|| format!("{} cannot be read", path.display()))?;
    if about.is_dir() && depth < 12 {
        for entry in std::fs::read_dir(path)? {
            walk(&entry?.path(), files, depth + 1)?;
        }
    } else if about.is_file() && about.len() <= FILE_BYTES_MAX && files.len() < FILES_MAX {
        files.push(path.to_owned());
    }
    Ok(())
}

/// The name without its ending, and the language when the name ends in one: `xquad.de.json`.
fn stem(path: &Path) -> (String, Option<String>) {
    let name = path.file_stem().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    match name.rsplit_once(['.', '_', '-']) {
        Some((head, tail)) if tail.len() == 2 && tail.bytes().all(|b| b.is_ascii_lowercase()) => {
            (head.to_owned(), Some(tail.to_owned()))
        }
        _ => (name, None),
    }
}

fn read_json(
    file: &Path,
    sets: &mut Sets,
    squads: &mut Vec<(String, Option<String>, Value)>,
    mails: &mut BTreeMap<String, Vec<(String, String)>>,
) -> Result<()> {
    let Ok(value) = serde_json::from_slice::<Value>(&std::fs::read(file)?) else { return Ok(()) };
    let (name, language) = stem(file);
    if let (Some(group), Some(text)) = (value["group"].as_str(), value["text"].as_str()) {
        let label = if group.contains("spam") { "spam" } else { "ham" };
        let group = mails.entry(group.to_owned()).or_default();
        if group.len() < MAILS_MAX {
            group.push((mail(text), label.to_owned()));
        }
    } else if value["data"][0]["paragraphs"].is_array() {
        squads.push((name, language, value));
    } else if value["train"].is_array() && value["test"].is_array() {
        let pairs = |key: &str| -> Vec<(String, String)> {
            let rows = value[key].as_array().into_iter().flatten();
            rows.filter_map(|row| Some((row[0].as_str()?.to_owned(), row[1].as_str()?.to_owned()))).collect()
        };
        sets.finding.push(intents(&name, &pairs("train"), &pairs("test")));
    }
    Ok(())
}

/// Subject and beginning of a mail's body, without markup: about what a message would hold.
fn mail(text: &str) -> String {
    let (head, body) = text.split_once("\n\n").unwrap_or(("", text));
    let subject = head.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap_or_default();
    let body = body.replace("=\n", "").replace("=20", " ").replace("=3D", "=");
    let text = format!("{subject}\n{}", plain(&body));
    text.chars().take(600).collect()
}

/// Training questions are the passages; a test question wants those of its own category.
fn intents(name: &str, train: &[(String, String)], test: &[(String, String)]) -> FindingSet {
    let mut taken: HashMap<&str, usize> = HashMap::new();
    let mut passages = Vec::new();
    let mut keys: HashMap<&str, HashSet<String>> = HashMap::new();
    for (text, intent) in train {
        let count = taken.entry(intent).or_default();
        if *count < EXAMPLES {
            *count += 1;
            let key = format!("p{}", passages.len());
            keys.entry(intent).or_default().insert(key.clone());
            passages.push(Passage { key, text: text.clone() });
        }
    }
    let questions = test.iter().filter_map(|(text, intent)| {
        let wanted = keys.get(intent.as_str())?.clone();
        Some(Question { text: text.clone(), wanted, answers: Vec::new() })
    });
    FindingSet { name: name.to_owned(), language: Some("en".to_owned()), passages, questions: questions.collect() }
}

fn read_table(file: &Path, sets: &mut Sets) -> Result<()> {
    let (columns, rows) = table(file)?;
    let at = |names: &[&str]| columns.iter().position(|column| names.contains(&column.as_str()));
    let (Some(text), Some(label)) = (at(&["text", "message"]), at(&["category", "intent", "label"])) else {
        return Ok(());
    };
    let pairs = |rows: Vec<Vec<String>>| -> Vec<(String, String)> {
        rows.into_iter().filter_map(|row| Some((row.get(text)?.clone(), row.get(label)?.clone()))).collect()
    };
    let (name, _) = stem(file);
    let labels: HashSet<&str> = rows.iter().filter_map(|row| row.get(label).map(String::as_str)).collect();
    if labels.contains("spam") || labels.contains("person") {
        sets.sorting.push(SortingSet { name, messages: pairs(rows) });
    } else if let Some(base) = file.to_string_lossy().strip_suffix("_test.csv") {
        let train = PathBuf::from(format!("{base}_train.csv"));
        if train.is_file() {
            let (_, train) = table(&train)?;
            sets.finding.push(intents(name.trim_end_matches("_test"), &pairs(train), &pairs(rows)));
        }
    }
    Ok(())
}

/// Header in lower case, and rows. Quotes as RFC 4180 has them.
fn table(file: &Path) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
    let separator = if file.extension().is_some_and(|ending| ending == "tsv") { '\t' } else { ',' };
    let mut rows: Vec<Vec<String>> = vec![vec![String::new()]];
    let mut quoted = false;
    let mut characters = text.trim_start_matches('\u{feff}').chars().peekable();
    while let Some(c) = characters.next() {
        let Some(row) = rows.last_mut() else { break };
        let Some(cell) = row.last_mut() else { break };
        match c {
            '"' if quoted && characters.peek() == Some(&'"') => {
                cell.push('"');
                characters.next();
            }
            '"' if quoted || cell.is_empty() => quoted = !quoted,
            '\n' if !quoted => rows.push(vec![String::new()]),
            '\r' if !quoted => {}
            c if c == separator && !quoted => row.push(String::new()),
            c => cell.push(c),
        }
    }
    rows.retain(|row| row.len() > 1);
    let mut rows = rows.into_iter();
    let header = rows.next().unwrap_or_default().iter().map(|name| name.trim().to_ascii_lowercase()).collect();
    Ok((header, rows.collect()))
}

/// Paragraphs, and questions with their ids.
type Article = (Vec<Passage>, Vec<(String, Question)>);

/// Paragraphs and questions of one file, by article. Keys are the same for the same place in every language's file.
fn articles(value: &Value) -> Vec<Article> {
    let mut articles = Vec::new();
    for (article_at, article) in value["data"].as_array().into_iter().flatten().enumerate() {
        let (mut passages, mut questions) = (Vec::new(), Vec::new());
        for (at, paragraph) in article["paragraphs"].as_array().into_iter().flatten().enumerate() {
            let Some(text) = paragraph["context"].as_str() else { continue };
            let key = format!("p{article_at}-{at}");
            passages.push(Passage { key: key.clone(), text: text.to_owned() });
            for asked in paragraph["qas"].as_array().into_iter().flatten() {
                let (Some(id), Some(text)) = (asked["id"].as_str(), asked["question"].as_str()) else { continue };
                let answers = asked["answers"].as_array().into_iter().flatten();
                let answers = answers.filter_map(|answer| answer["text"].as_str()).map(str::to_owned).collect();
                let wanted = HashSet::from([key.clone()]);
                questions.push((id.to_owned(), Question { text: text.to_owned(), wanted, answers }));
            }
        }
        articles.push((passages, questions));
    }
    articles
}

fn squad_sets(squads: &[(String, Option<String>, Value)], sets: &mut Sets) {
    let full = |name: &str, language: Option<&str>| match language {
        Some(language) => format!("{name}.{language}"),
        None => name.to_owned(),
    };
    for (name, language, value) in squads {
        let articles = articles(value);
        let name_here = full(name, language.as_deref());
        sets.finding.push(FindingSet {
            name: name_here.clone(),
            language: language.clone(),
            passages: articles.iter().flat_map(|(passages, _)| passages.clone()).collect(),
            questions: articles.iter().flat_map(|(_, asked)| asked.iter().map(|(_, q)| q.clone())).collect(),
        });
        sets.reading.push(ReadingSet {
            name: name_here,
            articles: articles
                .into_iter()
                .map(|(passages, asked)| (passages, asked.into_iter().map(|(_, question)| question).collect()))
                .collect(),
        });
    }
    // Questions of one language on the English paragraphs (or those of the first file).
    for (name, language, value) in squads {
        let of_name = || squads.iter().filter(|(other, ..)| other == name);
        let Some((_, base, base_value)) =
            of_name().find(|(_, language, _)| language.as_deref() == Some("en")).or_else(|| of_name().next())
        else {
            continue;
        };
        if base == language {
            continue;
        }
        let base_articles = articles(base_value);
        let known: HashMap<&str, &Question> =
            base_articles.iter().flat_map(|(_, asked)| asked.iter().map(|(id, q)| (id.as_str(), q))).collect();
        let asked = articles(value).into_iter().flat_map(|(_, asked)| asked);
        let questions = asked.filter_map(|(id, question)| {
            let there = known.get(id.as_str())?;
            Some(Question { text: question.text, wanted: there.wanted.clone(), answers: there.answers.clone() })
        });
        sets.finding.push(FindingSet {
            name: format!("{} on {}", full(name, language.as_deref()), base.as_deref().unwrap_or("the first")),
            language: base.clone(),
            questions: questions.collect(),
            passages: base_articles.iter().flat_map(|(passages, _)| passages.clone()).collect(),
        });
    }
}

/// A section of a page: id, heading, text.
struct Section {
    id: String,
    heading: String,
    text: String,
}

fn section_sets(pages: &BTreeMap<PathBuf, Vec<PathBuf>>, sets: &mut Sets) -> Result<()> {
    let mut folders: Vec<(String, Option<String>, Vec<Section>)> = Vec::new();
    for (folder, files) in pages {
        let mut sections = Vec::new();
        let mut language = None;
        for file in files {
            let text = String::from_utf8_lossy(&std::fs::read(file)?).into_owned();
            let (_, of_file) = stem(file);
            language = language.or(of_file);
            sections.extend(sections_of(&text));
        }
        let mut seen = HashSet::new();
        sections.retain(|section| seen.insert(section.id.clone()));
        // A manual of few sections measures nothing.
        if sections.len() >= 20 {
            let name = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let language = language.or_else(|| (name.len() == 2).then(|| name.clone())).or(Some("en".to_owned()));
            folders.push((format!("sections.{name}"), language, sections));
        }
    }
    let passages = |sections: &[Section]| -> Vec<Passage> {
        sections.iter().map(|section| Passage { key: section.id.clone(), text: section.text.clone() }).collect()
    };
    let questions = |asked: &[Section], there: &[Section]| -> Vec<Question> {
        let known: HashSet<&str> = there.iter().map(|section| section.id.as_str()).collect();
        let asked = asked.iter().filter(|section| known.contains(section.id.as_str()));
        asked
            .map(|section| Question {
                text: section.heading.clone(),
                wanted: HashSet::from([section.id.clone()]),
                answers: Vec::new(),
            })
            .collect()
    };
    for (name, language, sections) in &folders {
        sets.finding.push(FindingSet {
            name: name.clone(),
            language: language.clone(),
            passages: passages(sections),
            questions: questions(sections, sections),
        });
    }
    let Some((_, base, there)) = folders.iter().find(|(_, language, _)| language.as_deref() == Some("en")) else {
        return Ok(());
    };
    for (name, _, sections) in folders.iter().filter(|(_, language, _)| language != base) {
        let questions = questions(sections, there);
        if questions.len() >= 20 {
            let name = format!("{name} on {}", base.as_deref().unwrap_or_default());
            sets.finding.push(FindingSet { name, language: base.clone(), passages: passages(there), questions });
        }
    }
    Ok(())
}

/// Headings of level 2 and 3 with what stands under them. Numbers before a heading are no part of the question.
fn sections_of(html: &str) -> Vec<Section> {
    let mut sections = Vec::new();
    let mut rest = html;
    while let Some(start) = heading_start(rest) {
        let after = rest.get(start..).unwrap_or_default();
        let Some(end) = after.find("</h") else { break };
        let inner = after.get(..end).unwrap_or_default();
        let following = after.get(end + 4..).unwrap_or_default();
        let body = following.get(..heading_start(following).unwrap_or(following.len())).unwrap_or_default();
        let body = body.split("<div class=\"navfooter\"").next().unwrap_or_default();
        let id = attribute(inner, "id").unwrap_or_default();
        let heading = plain(inner.split_once('>').map_or("", |(_, text)| text));
        let heading = heading.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.' || c.is_whitespace());
        let text = plain(body);
        if !heading.is_empty() && !id.is_empty() && text.chars().count() >= SECTION_CHARACTERS_MIN {
            sections.push(Section { id: id.to_owned(), heading: heading.trim().to_owned(), text });
        }
        rest = following;
    }
    sections
}

fn heading_start(html: &str) -> Option<usize> {
    ["<h2", "<h3"].iter().filter_map(|tag| html.find(tag)).min()
}

fn attribute<'a>(html: &'a str, name: &str) -> Option<&'a str> {
    html.split_once(&format!("{name}=\""))?.1.split('"').next()
}

/// Text without tags, entities resolved, one blank between words.
fn plain(html: &str) -> String {
    let mut text = String::with_capacity(html.len());
    let mut inside = false;
    for c in html.chars() {
        match c {
            '<' => inside = true,
            '>' if inside => {
                inside = false;
                text.push(' ');
            }
            c if !inside => text.push(c),
            _ => {}
        }
    }
    let pairs = [("&nbsp;", " "), ("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    let text = pairs.iter().fold(text, |text, (entity, c)| text.replace(entity, c));
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_recognised() {
        let dir = tempfile::tempdir().unwrap();
        let squad = |question: &str| {
            format!(
                r#"{{"data":[{{"title":"t","paragraphs":[{{"context":"Text.","qas":[{{"id":"1","question":"{question}","answers":[{{"text":"Text"}}]}}]}}]}}]}}"#
            )
        };
        for (name, text) in [
            ("set.en.json", squad("What?")),
            ("set.de.json", squad("Was?")),
            ("bank_train.csv", "text,category\n\"a, \"\"b\"\"\",x\nc,y\n".to_owned()),
            ("bank_test.csv", "text,category\nd,x\n".to_owned()),
            ("clinc.json", r#"{"train":[["a","x"]],"test":[["b","x"]],"oos_test":[["c","oos"]]}"#.to_owned()),
            ("chat.tsv", "label\ttext\nspam\tBuy now\nperson\tA human please\nother\tHi\n".to_owned()),
        ] {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        let sets = read(dir.path(), &[]).unwrap();
        let names: Vec<&str> = sets.finding.iter().map(|set| set.name.as_str()).collect();
        assert_eq!(names, ["bank", "clinc", "set.de", "set.en", "set.de on en"]);
        assert_eq!(sets.finding[0].passages[0].text, "a, \"b\"");
        assert_eq!(sets.finding[4].questions[0].text, "Was?");
        assert_eq!(sets.sorting[0].messages.len(), 3);
        assert_eq!(read(dir.path(), &["clinc".to_owned()]).unwrap().finding.len(), 1);
    }

    #[test]
    fn sections_have_ids_headings_and_text() {
        let html = "<h2 class=\"t\"><a id=\"one\"></a>10.1. What is <em>this</em>?</h2><p>It is a section about &amp; of this.</p>\
                    <h2><a id=\"two\"></a>Short</h2><p>No.</p>";
        let sections = sections_of(html);
        assert_eq!(sections.len(), 1);
        assert_eq!((sections[0].id.as_str(), sections[0].heading.as_str()), ("one", "What is this ?"));
        assert!(sections[0].text.contains("about & of"));
    }
}

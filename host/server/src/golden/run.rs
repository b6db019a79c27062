//! Asking the questions of a file, and what came of it.

use std::collections::HashMap;
use std::time::Instant;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::GoldenError;
use super::file::{ExpectedRoute, Golden, GoldenFile};
use crate::knowledge::{detect_language, terms::fold};
use crate::pipeline::{Rehearsed, Stage, rehearse};

/// Version of [`Report`]'s JSON form.
const REPORT_VERSION: u32 = 1;

/// What a run came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    pub version: u32,
    pub id: Uuid,
    pub at: DateTime<Utc>,
    pub page_id: String,
    pub chain: String,
    pub revision: String,
    /// What drafts answers.
    pub drafter: String,
    /// Id of the embedding model.
    pub embeddings: String,
    pub cases: Vec<CaseReport>,
}

/// What one question came to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CaseReport {
    pub name: String,
    pub question: String,
    pub expected_route: String,
    /// Where it went: `answer`, `ask-back`, `person`, `ignore` or `spam`.
    pub route: String,
    /// Empty when everything is as expected.
    pub problems: Vec<String>,
    /// What would be said.
    pub reply: String,
    /// Sources of the documents that the answer cites.
    pub cites: Vec<String>,
    pub confidence: f32,
    pub ms: u64,
}

impl CaseReport {
    pub fn passed(&self) -> bool {
        self.problems.is_empty()
    }
}

impl Report {
    pub fn passed(&self) -> usize {
        self.cases.iter().filter(|case| case.passed()).count()
    }

    pub fn failed(&self) -> usize {
        self.cases.len() - self.passed()
    }

    /// Share of the questions that came out as expected, 0 to 1.
    #[expect(clippy::cast_precision_loss, reason = "a file has at most some thousand questions")]
    pub fn score(&self) -> f64 {
        self.passed() as f64 / self.cases.len().max(1) as f64
    }

    /// What changed from `before` to this.
    pub fn compared(&self, before: &Self) -> Comparison {
        let earlier: HashMap<&str, &CaseReport> = before.cases.iter().map(|case| (case.name.as_str(), case)).collect();
        let mut comparison = Comparison { before: before.id, after: self.id, ..Comparison::default() };
        for case in &self.cases {
            match earlier.get(case.name.as_str()) {
                None => comparison.added.push(case.name.clone()),
                Some(was) if was.passed() && !case.passed() => {
                    comparison.regressed.push(format!("{}: {}", case.name, case.problems.join("; ")));
                }
                Some(was) if !was.passed() && case.passed() => comparison.mended.push(case.name.clone()),
                Some(was) if was.reply != case.reply => comparison.reworded.push(case.name.clone()),
                Some(_) => {}
            }
        }
        let now: HashMap<&str, ()> = self.cases.iter().map(|case| (case.name.as_str(), ())).collect();
        let gone = before.cases.iter().filter(|case| !now.contains_key(case.name.as_str()));
        comparison.removed = gone.map(|case| case.name.clone()).collect();
        comparison
    }
}

/// Two runs side by side, by the questions' names.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Comparison {
    pub before: Uuid,
    pub after: Uuid,
    /// Went well before and do not now, with what is wrong.
    pub regressed: Vec<String>,
    pub mended: Vec<String>,
    /// As good as before, in other words.
    pub reworded: Vec<String>,
    pub added: Vec<String>,
    pub removed: Vec<String>,
}

pub(super) async fn ask(stage: &Stage, file: &GoldenFile) -> Result<Report, GoldenError> {
    let mut cases = Vec::new();
    for golden in &file.golden {
        let mut history: Vec<(&'static str, String)> = Vec::new();
        for (at, step) in std::iter::once(golden).chain(&golden.then).enumerate() {
            let started = Instant::now();
            let rehearsed = rehearse(stage, &step.question, &history).await?;
            let name = match at {
                0 => step.title().to_owned(),
                _ => format!("{} > {}", golden.title(), step.title()),
            };
            let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            let case = judged(name, step, &rehearsed, ms);
            history.push(("customer", step.question.clone()));
            if !case.reply.is_empty() {
                history.push(("bot", case.reply.clone()));
            }
            cases.push(case);
        }
    }
    Ok(Report {
        version: REPORT_VERSION,
        id: Uuid::now_v7(),
        at: stage.now,
        page_id: stage.page.page_id.clone(),
        chain: stage.page.chain.clone(),
        revision: stage.revision.id().as_str().to_owned(),
        drafter: stage.drafter.name().to_owned(),
        embeddings: stage.knowledge.embedder().model_id().to_owned(),
        cases,
    })
}

fn judged(name: String, golden: &Golden, rehearsed: &Rehearsed, ms: u64) -> CaseReport {
    let Rehearsed { result, record } = rehearsed;
    let route = match result.outcome {
        "sent" => "answer",
        "asked_back" => "ask-back",
        "ticket" => "person",
        "ignored" => "ignore",
        other => other,
    };
    let reply = result.replies.join("\n");
    let sources: HashMap<&str, &str> =
        record.passages.iter().map(|passage| (passage.id.as_str(), passage.source.as_str())).collect();
    let mut cites: Vec<String> = Vec::new();
    for id in record.citations.iter().flat_map(|citation| &citation.passages) {
        if let Some(source) = sources.get(id.as_str())
            && !cites.iter().any(|known| known == source)
            && route == "answer"
        {
            cites.push((*source).to_owned());
        }
    }
    CaseReport {
        problems: problems(golden, route, &reply, &cites),
        name,
        question: golden.question.clone(),
        expected_route: golden.route.as_str().to_owned(),
        route: route.to_owned(),
        reply,
        cites,
        confidence: result.confidence,
        ms,
    }
}

fn problems(golden: &Golden, route: &str, reply: &str, cites: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    let as_expected = match golden.route {
        ExpectedRoute::NoAnswer => route != "answer",
        expected => route == expected.as_str(),
    };
    if !as_expected {
        problems.push(format!("it went to {route}, expected {}", golden.route.as_str()));
    }
    let said = fold(reply);
    let holds = |wanted: &str| wanted.split('|').any(|one| said.contains(&fold(one.trim())));
    problems.extend(golden.must.iter().filter(|wanted| !holds(wanted)).map(|wanted| format!("{wanted:?} is not said")));
    problems.extend(golden.must_not.iter().filter(|bad| holds(bad)).map(|bad| format!("{bad:?} is said")));
    // A document may be known by a longer name, such as one in a folder.
    let is_cited =
        |wanted: &str| cites.iter().any(|source| source == wanted || source.ends_with(&format!("/{wanted}")));
    let missing = golden.cites.iter().filter(|wanted| !is_cited(wanted));
    problems.extend(missing.map(|wanted| format!("{wanted} is not cited")));
    if let Some(language) = golden.language.as_deref() {
        let found = detect_language(reply);
        if found.is_some_and(|found| found != language) || reply.is_empty() {
            problems.push(format!("it is in {}, expected {language}", found.unwrap_or("no language")));
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn golden() -> Golden {
        Golden {
            question: "Do you ship?".to_owned(),
            cites: vec!["shipping.md".to_owned()],
            must: vec!["4.90|4,90".to_owned()],
            must_not: vec!["France".to_owned()],
            language: Some("en".to_owned()),
            ..Golden::default()
        }
    }

    #[test]
    fn what_is_expected_is_looked_for() {
        let cites = ["docs/shipping.md".to_owned()];
        assert_eq!(
            problems(&golden(), "answer", "Shipping to Austria costs 4,90 euros.", &cites),
            Vec::<String>::new()
        );
        let found = problems(&golden(), "person", "Nous livrons aussi en FRANCE chaque semaine.", &[]);
        assert_eq!(found.len(), 5, "{found:?}");
        let refused = Golden { route: ExpectedRoute::NoAnswer, question: "x".to_owned(), ..Golden::default() };
        assert!(problems(&refused, "ask-back", "", &[]).is_empty() && problems(&refused, "person", "", &[]).is_empty());
        assert_eq!(problems(&refused, "answer", "", &[]).len(), 1);
    }

    #[test]
    fn runs_are_compared_by_name() {
        let case = |name: &str, ok: bool| CaseReport {
            name: name.to_owned(),
            question: name.to_owned(),
            expected_route: "answer".to_owned(),
            route: "answer".to_owned(),
            problems: if ok { Vec::new() } else { vec!["wrong".to_owned()] },
            reply: String::new(),
            cites: Vec::new(),
            confidence: 1.0,
            ms: 1,
        };
        let report = |cases: Vec<CaseReport>| Report {
            version: 1,
            id: Uuid::now_v7(),
            at: Utc::now(),
            page_id: "1".to_owned(),
            chain: "default".to_owned(),
            revision: "r".to_owned(),
            drafter: "extractive".to_owned(),
            embeddings: "hash".to_owned(),
            cases,
        };
        let before = report(vec![case("a", true), case("b", false), case("gone", true)]);
        let after = report(vec![case("a", false), case("b", true), case("new", true)]);
        let compared = after.compared(&before);
        assert_eq!(compared.regressed, ["a: wrong"]);
        assert_eq!(
            (compared.mended, compared.added, compared.removed.len()),
            (vec!["b".into()], vec!["new".into()], 1)
        );
        assert!((before.score() - 2.0 / 3.0).abs() < 1e-9);
    }
}

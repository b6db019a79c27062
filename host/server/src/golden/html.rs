//! A report as one HTML page, without scripts and without anything loaded from elsewhere: the score over time as an inline
//! SVG, the questions with what came of them, and what changed since the run before.

use std::fmt::Write;

use super::run::{CaseReport, Comparison, Report};
use crate::db::golden::Run;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 180.0;
const MARGIN: f64 = 36.0;
/// Runs in the picture.
const POINTS_MAX: usize = 100;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1c2430}\
h1{font-size:1.5rem}table{border-collapse:collapse;width:100%}td,th{border-bottom:1px solid #dde3ea;padding:.4rem;\
text-align:left;vertical-align:top}.bad{color:#a3161f}.good{color:#17693a}.quiet{color:#66707c;font-size:.85rem}\
svg{max-width:100%;height:auto}li{margin:.2rem 0}";

/// The page of a run. `runs` are those of the same Page, newest first, this one among them or not.
pub fn page(report: &Report, runs: &[Run], comparison: Option<&Comparison>) -> String {
    let mut html = String::from("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n");
    let _ = write!(
        html,
        "<meta name=\"viewport\" content=\"width=device-width\"><title>Golden questions: {:.1} %</title>\n\
         <style>{STYLE}</style></head><body>\n<h1>Golden questions: {} of {} as expected ({:.1} %)</h1>\n\
         <p class=\"quiet\">Page {} · chain {} · revision {} · {} · embeddings {} · {}</p>\n",
        report.score() * 100.0,
        report.passed(),
        report.cases.len(),
        report.score() * 100.0,
        escaped(&report.page_id),
        escaped(&report.chain),
        escaped(report.revision.get(..12).unwrap_or(&report.revision)),
        escaped(&report.drafter),
        escaped(&report.embeddings),
        report.at.format("%Y-%m-%d %H:%M UTC"),
    );
    html.push_str(&picture(runs));
    if let Some(comparison) = comparison {
        html.push_str(&compared(comparison));
    }
    html.push_str("<table><thead><tr><th>Question</th><th>Went to</th><th>What is said</th></tr></thead><tbody>\n");
    // What is wrong first: that is what people look for.
    let wrong = report.cases.iter().filter(|case| !case.passed());
    wrong.chain(report.cases.iter().filter(|case| case.passed())).for_each(|case| html.push_str(&row(case)));
    html.push_str("</tbody></table></body></html>\n");
    html
}

fn row(case: &CaseReport) -> String {
    let mark = if case.passed() { "<span class=\"good\">✓</span>" } else { "<span class=\"bad\">✗</span>" };
    let problems: String =
        case.problems.iter().map(|problem| format!("<div class=\"bad\">{}</div>", escaped(problem))).collect();
    let name = if case.name == case.question { String::new() } else { format!("{} – ", escaped(&case.name)) };
    let cites = match case.cites.is_empty() {
        true => String::new(),
        false => format!("<div class=\"quiet\">{}</div>", escaped(&case.cites.join(", "))),
    };
    format!(
        "<tr><td>{mark} {name}{}{problems}</td><td>{}<div class=\"quiet\">{:.2} · {} ms</div></td><td>{}{cites}</td></tr>\n",
        escaped(&case.question),
        escaped(&case.route),
        case.confidence,
        case.ms,
        escaped(&case.reply).replace('\n', "<br>"),
    )
}

fn compared(comparison: &Comparison) -> String {
    let lists = [
        ("Worse than before", "bad", &comparison.regressed),
        ("Better than before", "good", &comparison.mended),
        ("In other words", "quiet", &comparison.reworded),
        ("New", "quiet", &comparison.added),
        ("Gone", "quiet", &comparison.removed),
    ];
    let mut html = format!("<h2>Since run {}</h2>\n", comparison.before);
    if lists.iter().all(|(_, _, list)| list.is_empty()) {
        html.push_str("<p>Nothing changed.</p>\n");
    }
    for (title, class, list) in lists.into_iter().filter(|(_, _, list)| !list.is_empty()) {
        let items: String = list.iter().map(|item| format!("<li>{}</li>", escaped(item))).collect();
        let _ = writeln!(html, "<h3 class=\"{class}\">{title} ({})</h3><ul>{items}</ul>", list.len());
    }
    html
}

/// Share of the questions that came out as expected, run by run, oldest on the left.
pub fn picture(runs: &[Run]) -> String {
    let shown: Vec<&Run> = runs.iter().take(POINTS_MAX).rev().collect();
    if shown.is_empty() {
        return String::new();
    }
    let score = |run: &Run| f64::from(run.passed) / f64::from((run.passed + run.failed).max(1));
    #[expect(clippy::cast_precision_loss, reason = "at most a hundred points")]
    let place = |at: usize, run: &Run| {
        let across = if shown.len() > 1 { at as f64 / (shown.len() - 1) as f64 } else { 0.5 };
        (MARGIN + across * (WIDTH - 2.0 * MARGIN), MARGIN / 2.0 + (1.0 - score(run)) * (HEIGHT - 1.5 * MARGIN))
    };
    let points: Vec<(f64, f64)> = shown.iter().enumerate().map(|(at, run)| place(at, run)).collect();
    let line = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect::<Vec<_>>().join(" ");
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" \
         aria-label=\"Score over time\">\n"
    );
    for share in [0.0, 0.5, 1.0] {
        let y = MARGIN / 2.0 + (1.0 - share) * (HEIGHT - 1.5 * MARGIN);
        let _ = writeln!(
            svg,
            "<line x1=\"{MARGIN}\" y1=\"{y:.1}\" x2=\"{:.1}\" y2=\"{y:.1}\" stroke=\"#dde3ea\"/>\
             <text x=\"2\" y=\"{:.1}\" font-size=\"11\" fill=\"#66707c\">{:.0} %</text>",
            WIDTH - MARGIN,
            y + 4.0,
            share * 100.0
        );
    }
    let _ = writeln!(svg, "<polyline points=\"{line}\" fill=\"none\" stroke=\"#2457a6\" stroke-width=\"2\"/>");
    for ((x, y), run) in points.iter().zip(&shown) {
        let colour = if run.failed == 0 { "#17693a" } else { "#a3161f" };
        let about = format!(
            "{} {} {}: {} of {}",
            run.at.format("%Y-%m-%d %H:%M"),
            run.occasion,
            run.subject,
            run.passed,
            run.passed + run.failed
        );
        let _ = writeln!(
            svg,
            "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4\" fill=\"{colour}\"><title>{}</title></circle>",
            escaped(&about)
        );
    }
    let dates = [shown.first().map(|run| (MARGIN, "start", run)), shown.last().map(|run| (WIDTH - MARGIN, "end", run))];
    for (x, anchor, run) in dates.into_iter().flatten() {
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{:.1}\" font-size=\"11\" fill=\"#66707c\" text-anchor=\"{anchor}\">{}</text>",
            HEIGHT - 6.0,
            run.at.format("%Y-%m-%d")
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use chrono::Utc;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_page_shows_scores_and_problems_and_runs_nothing() {
        let run = |passed, failed| Run {
            id: Uuid::now_v7(),
            at: Utc::now(),
            occasion: "knowledge".to_owned(),
            subject: "<faq>".to_owned(),
            actor: String::new(),
            page_id: "1".to_owned(),
            chain: "default".to_owned(),
            revision: "r".to_owned(),
            passed,
            failed,
        };
        let case = CaseReport {
            name: "n".to_owned(),
            question: "<script>alert(1)</script>".to_owned(),
            expected_route: "answer".to_owned(),
            route: "person".to_owned(),
            problems: vec!["it went to person".to_owned()],
            reply: "a & b".to_owned(),
            cites: Vec::new(),
            confidence: 0.5,
            ms: 3,
        };
        let report = Report {
            version: 1,
            id: Uuid::now_v7(),
            at: Utc::now(),
            page_id: "1".to_owned(),
            chain: "default".to_owned(),
            revision: "r".to_owned(),
            drafter: "extractive".to_owned(),
            embeddings: "hash".to_owned(),
            cases: vec![case],
        };
        let html = page(&report, &[run(1, 1), run(2, 0)], Some(&report.compared(&report)));
        assert!(html.contains("<svg") && html.contains("<polyline") && html.matches("<circle").count() == 2);
        assert!(html.contains("&lt;script&gt;") && !html.contains("<script") && html.contains("it went to person"));
        assert!(html.contains("Nothing changed."));
        assert!(picture(&[]).is_empty());
    }
}

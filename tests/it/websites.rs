//! Websites on a real HTTP server: what is read, what is left alone, and what is never called.

use std::collections::HashMap;
use std::io::Write;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use frontdesk_server::golden::Strictness;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::host::{ANSWER, Host, PAGE, QUESTION};
use crate::jobs::over;

/// One path of the site.
#[derive(Clone, Default)]
struct Path {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
}

/// A site whose paths can be changed while it runs.
#[derive(Clone, Default)]
struct Site {
    paths: Arc<Mutex<HashMap<String, Path>>>,
    asked: Arc<Mutex<Vec<(String, u16)>>>,
    address: String,
}

impl Site {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let site = Self { address, ..Self::default() };
        let router = Router::new().fallback(answer).with_state(site.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        site
    }

    fn set(&self, path: &str, status: u16, headers: &[(&'static str, &str)], body: impl Into<Vec<u8>>) {
        let headers = headers.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.paths.lock().unwrap().insert(path.to_owned(), Path { status, headers, body: body.into() });
    }

    fn html(&self, path: &str, etag: &str, body: &str) {
        let page = format!("<html><head><title>{path}</title></head><body>{body}</body></html>");
        self.set(path, 200, &[("content-type", "text/html; charset=utf-8"), ("etag", etag)], page);
    }

    fn sitemap(&self, path: &str, pages: &[&str]) {
        self.set(path, 200, &[("content-type", "application/xml")], self.urlset(pages));
    }

    fn urlset(&self, pages: &[&str]) -> String {
        let urls: String = pages.iter().map(|page| format!("<url><loc>{}</loc></url>", self.absolute(page))).collect();
        format!("<?xml version=\"1.0\"?><urlset xmlns=\"http://www.sitemaps.org/schemas/sitemap/0.9\">{urls}</urlset>")
    }

    fn index(&self, path: &str, sitemaps: &[&str]) {
        let urls: String =
            sitemaps.iter().map(|map| format!("<sitemap><loc>{}</loc></sitemap>", self.absolute(map))).collect();
        self.set(path, 200, &[], format!("<sitemapindex>{urls}</sitemapindex>"));
    }

    fn absolute(&self, path: &str) -> String {
        if path.starts_with('/') { format!("{}{path}", self.address) } else { path.to_owned() }
    }

    /// Paths that were asked for since the last look, with the status each got.
    fn asked(&self) -> Vec<(String, u16)> {
        std::mem::take(&mut self.asked.lock().unwrap())
    }
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let path = request.uri().path_and_query().map(ToString::to_string).unwrap_or_default();
    let found = site.paths.lock().unwrap().get(&path).cloned();
    let found = found.unwrap_or(Path { status: 404, ..Path::default() });
    let value = |headers: &HeaderMap, name| headers.get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    let own = |name: &str| found.headers.iter().find(|(own, _)| *own == name).map(|(_, value)| value.clone());
    let same = [(header::IF_NONE_MATCH, "etag"), (header::IF_MODIFIED_SINCE, "last-modified")]
        .into_iter()
        .any(|(asked, has)| value(request.headers(), asked).is_some_and(|value| Some(value) == own(has)));
    let status = if same { 304 } else { found.status };
    site.asked.lock().unwrap().push((path, status));
    let mut response = (StatusCode::from_u16(status).unwrap(), found.body).into_response();
    for (name, value) in found.headers {
        response.headers_mut().insert(name, value.parse().unwrap());
    }
    response
}

async fn host() -> Host {
    Host::start_with(|plan| {
        plan.settings.website.allow_private = true;
        plan.settings.website.delay_ms = 0;
        plan.settings.website.page_bytes_max = 64 * 1_024;
    })
    .await
}

async fn visit(host: &Host, url: &str, more: Value) -> Value {
    let mut body = json!({ "url": url, "page_id": PAGE });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let (status, answer) = host.admin("POST", "/admin/knowledge/websites", Some(body)).await;
    assert_eq!(status, 202, "{answer}");
    over(host, answer["job_id"].as_str().unwrap()).await
}

/// What came of a page, with the note.
fn outcome<'a>(report: &'a Value, ending: &str) -> (&'a str, &'a str) {
    let line = report["pages"].as_array().unwrap().iter().find(|line| line["url"].as_str().unwrap().ends_with(ending));
    let line = line.unwrap_or_else(|| panic!("{ending} is not in {report}"));
    (line["outcome"].as_str().unwrap_or_default(), line["note"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn a_site_is_read_by_its_sitemaps_and_asked_again_only_for_what_changed() {
    let (host, site) = (host().await, Site::start().await);
    site.set(
        "/robots.txt",
        200,
        &[],
        format!("User-agent: *\nDisallow: /private\nSitemap: {}/maps.xml\n", site.address),
    );
    site.index("/maps.xml", &["/pages.xml.gz", "/more.xml", "/missing.xml", "https://elsewhere.example/s.xml"]);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    packed
        .write_all(site.urlset(&["/hours", "/returns?lang=en&x=1", "/private/staff"]).replace('&', "&amp;").as_bytes())
        .unwrap();
    site.set("/pages.xml.gz", 200, &[("content-type", "application/gzip")], packed.finish().unwrap());
    site.sitemap(
        "/more.xml",
        &[
            "/latin",
            "/terms.pdf",
            "/photo",
            "/big",
            "/gone",
            "/hidden",
            "/moved",
            "/away",
            "https://elsewhere.example/x",
        ],
    );
    site.html("/hours", "\"1\"", "<nav>Home</nav><h1>Opening hours</h1><p>The workshop opens at seven.</p>");
    site.html(
        "/returns?lang=en&x=1",
        "\"1\"",
        "<h1>Returns</h1><table><tr><th>What</th><th>Days</th></tr><tr><td>Tyres</td><td>14</td></tr></table>",
    );
    site.html("/private/staff", "\"1\"", "<p>Salaries</p>");
    site.set(
        "/latin",
        200,
        &[("content-type", "text/html; charset=iso-8859-1"), ("last-modified", "Mon, 01 Jun 2026 00:00:00 GMT")],
        b"<p>Caf\xe9 au lait for cyclists.</p>".as_slice(),
    );
    let pdf =
        std::fs::read(std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/documents/rental.pdf")).unwrap();
    site.set("/terms.pdf", 200, &[("content-type", "application/pdf")], pdf);
    site.set("/photo", 200, &[("content-type", "image/jpeg")], vec![0xff; 100]);
    site.set("/big", 200, &[("content-type", "text/html")], "x".repeat(65 * 1_024));
    site.html("/hidden", "\"1\"", "<meta name='robots' content='noindex, follow'><p>Not for search.</p>");
    site.set("/moved", 302, &[("location", "/hours")], "");
    site.set("/away", 302, &[("location", "http://169.254.169.254/latest/meta-data")], "");

    let report = visit(&host, &site.address, json!({ "labels": ["site"] })).await;
    assert_eq!(report["job"]["state"], "done", "{report}");
    for (page, expected, words) in [
        ("/hours", "created", ""),
        ("/returns?lang=en&x=1", "created", ""),
        ("/private/staff", "skipped", "robots.txt"),
        ("/latin", "created", ""),
        ("/terms.pdf", "created", ""),
        ("/photo", "skipped", "image/jpeg"),
        ("/big", "failed", "more than 65536 bytes"),
        ("/gone", "skipped", "not there"),
        ("/hidden", "skipped", "not to be indexed"),
        ("/moved", "created", ""),
        ("/away", "failed", "away from the site"),
        ("/missing.xml", "failed", "not there"),
    ] {
        let (found, note) = outcome(&report, page);
        assert!(found == expected && note.contains(words), "{page}: {found}, {note}");
    }
    assert!(!site.asked().iter().any(|(path, _)| path == "/private/staff"), "what robots.txt forbids is not asked for");
    for (question, words) in [
        ("when does the workshop open", "opens at seven"),
        ("return days for tyres", "| Tyres | 14"),
        ("café au lait", "Café au lait"),
    ] {
        let (_, found) = host
            .admin("GET", &format!("/admin/knowledge/search?q={}&page_id={PAGE}", question.replace(' ', "+")), None)
            .await;
        assert!(found["hits"][0]["text"].as_str().unwrap_or_default().contains(words), "{question}: {found}");
    }

    // The second visit.
    site.html("/hours", "\"2\"", "<h1>Opening hours</h1><p>The workshop opens at eight.</p>");
    site.set("/latin", 410, &[], "");
    let report = visit(&host, &format!("{}/maps.xml", site.address), json!({})).await;
    let pages: HashMap<String, u16> = site.asked().into_iter().collect();
    assert_eq!(outcome(&report, "/hours").0, "replaced");
    assert_eq!(outcome(&report, "/returns?lang=en&x=1").0, "not-modified");
    assert_eq!(pages["/returns?lang=en&x=1"], 304);
    assert_eq!(outcome(&report, "/terms.pdf").0, "unchanged", "the server names no version, the bytes are the same");
    assert_eq!(outcome(&report, "/latin").0, "deleted");
    let sources = "select count(*) from documents where source like '%/latin'";
    assert_eq!(host.count(sources).await, 0);

    // What is no longer listed goes, when that is asked for.
    site.sitemap("/more.xml", &["/terms.pdf"]);
    let report = visit(&host, &format!("{}/maps.xml", site.address), json!({ "prune": true })).await;
    assert_eq!(report["job"]["result"]["pruned"], 1, "/moved: {report}");
}

#[tokio::test]
async fn limits_end_a_visit_and_it_says_which() {
    let (host, site) = (host().await, Site::start().await);
    let pages: Vec<String> = (0..30).map(|page| format!("/p{page}")).collect();
    for page in &pages {
        site.html(page, "\"1\"", &format!("<p>Page {page} tells of wheels.</p>"));
    }
    site.sitemap("/sitemap.xml", &pages.iter().map(String::as_str).collect::<Vec<_>>());
    let report = visit(&host, &site.address, json!({ "pages_max": 5 })).await;
    assert_eq!(
        (report["job"]["state"].as_str(), report["job"]["result"]["limit"].as_str()),
        (Some("done"), Some("pages"))
    );
    assert_eq!(report["job"]["result"]["pages"]["created"], 5, "{report}");
    assert_eq!(host.count("select count(*) from documents").await, 5);
}

#[tokio::test]
async fn a_site_without_sitemaps_or_leave_says_so() {
    let (host, site) = (host().await, Site::start().await);
    let report = visit(&host, &site.address, json!({})).await;
    let error = report["job"]["error"].as_str().unwrap();
    assert!(report["job"]["state"] == "failed" && error.contains("/sitemap.xml is no sitemap"), "{report}");
    site.set("/robots.txt", 200, &[], "User-agent: frontdesk\nDisallow: /\n");
    site.sitemap("/sitemap.xml", &["/a"]);
    let report = visit(&host, &site.address, json!({})).await;
    assert!(report["job"]["error"].as_str().unwrap().contains("robots.txt"), "{report}");
    site.set("/robots.txt", 200, &[], "");
    site.set("/sitemap.xml", 200, &[], "<html>welcome</html>");
    let report = visit(&host, &site.address, json!({})).await;
    assert!(report["job"]["error"].as_str().unwrap().contains("neither a sitemap's XML"), "{report}");
}

#[tokio::test]
async fn addresses_of_this_machine_are_never_called() {
    let (host, site) = (Host::start().await, Site::start().await);
    site.sitemap("/sitemap.xml", &["/a"]);
    let port = site.address.rsplit(':').next().unwrap();
    for url in [
        site.address.clone(),
        format!("http://[::1]:{port}/"),
        "http://169.254.169.254/".into(),
        "file:///etc/passwd".into(),
        "http://u:p@shop.example/".into(),
        "nonsense".into(),
    ] {
        let (status, answer) = host.admin("POST", "/admin/knowledge/websites", Some(json!({ "url": url }))).await;
        assert_eq!(status, 400, "{url}: {answer}");
    }
    // A name shows where it leads only when it is resolved.
    let report = visit(&host, &format!("http://localhost:{port}/"), json!({})).await;
    let error = report["job"]["error"].as_str().unwrap();
    assert!(report["job"]["state"] == "failed" && error.contains("private address"), "{report}");
    assert_eq!(site.asked(), [], "nothing was asked of it");
}

#[tokio::test]
async fn a_visit_goes_on_where_another_process_stopped() {
    let (host, site) = (host().await, Site::start().await);
    let pages: Vec<String> = (0..20).map(|page| format!("/p{page}")).collect();
    for page in &pages {
        site.html(page, "\"1\"", &format!("<p>Page {page} tells of wheels.</p>"));
    }
    site.sitemap("/sitemap.xml", &pages.iter().map(String::as_str).collect::<Vec<_>>());
    let body = json!({ "url": site.address, "page_id": PAGE });
    let (_, answer) = host.admin("POST", "/admin/knowledge/websites", Some(body)).await;
    let id = answer["job_id"].as_str().unwrap().to_owned();
    host.until("some pages are read", async || host.count("select count(*) from documents").await >= 3).await;
    let host = host.restart().await;
    let report = over(&host, &id).await;
    // A page that was stored just before the stop, and not counted yet, is asked about again: the site answers with
    // 304 when its ETag was stored as well, and with the same words when it was not.
    let pages_with = |what: &str| report["job"]["result"]["pages"][what].as_u64().unwrap_or(0);
    let (created, again) = (pages_with("created"), pages_with("not-modified") + pages_with("unchanged"));
    assert!(created + again == 20 && again <= 1, "{report}");
    assert_eq!(host.count("select count(*) from documents").await, 20);
    let asked: Vec<String> =
        site.asked().into_iter().map(|(path, _)| path).filter(|path| path.starts_with("/p")).collect();
    let twice = asked.len() - pages.len();
    assert!(twice <= 1, "only the page that was being read is read again: {asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_that_break_golden_questions_are_refused_and_the_others_taken_in() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("goldens.toml");
    let golden = format!("[[golden]]\nquestion = {QUESTION:?}\nroute = \"answer\"\nmust = [\"three working days\"]\n");
    std::fs::write(&file, format!("version = 1\n{golden}")).unwrap();
    let host = Host::start_with(move |plan| {
        plan.settings.website.allow_private = true;
        plan.settings.website.delay_ms = 0;
        plan.settings.golden.file = file.clone();
        plan.settings.golden.on_knowledge = Strictness::Refuse;
    })
    .await;
    let site = Site::start().await;
    let others: Vec<String> = (0..20).map(|page| format!("/p{page}")).collect();
    let mut pages: Vec<&str> = others.iter().map(String::as_str).collect();
    pages.insert(7, "/shipping");
    site.sitemap("/sitemap.xml", &pages);
    site.html("/shipping", "\"1\"", &format!("<h1>Shipping to Austria</h1><p>{ANSWER}</p>"));
    for page in &others {
        site.html(page, "\"1\"", &format!("<h1>Wheels of {page}</h1><p>Page {page} tells of wheels.</p>"));
    }
    let report = visit(&host, &site.address, json!({})).await;
    assert_eq!(report["job"]["result"]["pages"], json!({ "created": 21 }), "{report}");

    // A page that takes the answer away stays as it was; what is beside it is taken in.
    site.html("/shipping", "\"2\"", "<h1>Shipping to Austria</h1><p>We ship to nobody any more, sorry about that.</p>");
    site.html("/p3", "\"2\"", "<h1>Wheels</h1><p>Spokes are laced by hand.</p>");
    site.html("/p9", "\"2\"", "<h1>Wheels</h1><p>Rims are made of oak.</p>");
    let report = visit(&host, &site.address, json!({})).await;
    assert_eq!(
        report["job"]["result"]["pages"],
        json!({ "not-modified": 18, "refused": 1, "replaced": 2 }),
        "{report}"
    );
    let (word, note) = outcome(&report, "/shipping");
    assert!(word == "refused" && note.contains(QUESTION), "{report}");
    let kept = "select count(*) from passages where text like '%three working days%'";
    assert_eq!(host.count(kept).await, 1);
    assert_eq!(host.count("select count(*) from passages where text like '%nobody any more%'").await, 0);

    // The same holds for a page that is gone, and for one that is listed no more.
    site.set("/shipping", 404, &[], "");
    let report = visit(&host, &site.address, json!({})).await;
    assert_eq!(outcome(&report, "/shipping").0, "refused", "{report}");
    site.sitemap("/sitemap.xml", &["/p1", "/p2"]);
    let report = visit(&host, &site.address, json!({ "prune": true })).await;
    assert_eq!(report["job"]["result"]["pruned"], 18, "{report}");
    assert!(report["job"]["result"]["warnings"][0].as_str().unwrap().contains(QUESTION), "{report}");
    assert_eq!(host.count(kept).await, 1);
}

//! Files of other programs, whole and broken, read by the process that reads them.

use std::path::{Path, PathBuf};

use frontdesk_server::knowledge::{
    EmbeddingSettings, ExtractError, ExtractionSettings, Extractor, Hit, IngestError, Knowledge, NewDocument, Outcome,
    RetrievalSettings, SearchRequest, Unreadable, embedder,
};
use sqlx::PgPool;

use crate::database::fresh_database;

/// The `frontdesk` program, built beside the tests; the tests' own program is not it.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_frontdesk-under-test").into()
}

fn limits() -> ExtractionSettings {
    ExtractionSettings { program: program(), ..ExtractionSettings::default() }
}

fn knowledge(pool: &PgPool, extraction: ExtractionSettings) -> Knowledge {
    let embedder = embedder(&EmbeddingSettings::default()).unwrap();
    let knowledge = Knowledge::new(pool.clone(), embedder, RetrievalSettings::default()).unwrap();
    knowledge.with_extraction(extraction).unwrap()
}

fn file(name: &str) -> NewDocument {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/documents").join(name);
    NewDocument { source: name.to_owned(), bytes: std::fs::read(path).unwrap(), ..NewDocument::default() }
}

fn named(source: &str, bytes: impl Into<Vec<u8>>) -> NewDocument {
    NewDocument { source: source.to_owned(), bytes: bytes.into(), ..NewDocument::default() }
}

async fn best(knowledge: &Knowledge, query: &str) -> Hit {
    let request = SearchRequest {
        page_id: None,
        query: query.to_owned(),
        language: None,
        labels: Vec::new(),
        passage_languages: Vec::new(),
        limit: 5,
        now: chrono::Utc::now(),
    };
    let found = knowledge.search(request).await.unwrap();
    found.hits.into_iter().next().unwrap_or_else(|| panic!("{query} found nothing"))
}

/// Why a file was refused.
async fn refusal(knowledge: &Knowledge, document: NewDocument) -> ExtractError {
    let source = document.source.clone();
    match knowledge.add(document).await {
        Err(error @ IngestError::Extract { .. }) => {
            assert!(error.to_string().contains(&source), "{error}");
            let IngestError::Extract { source, .. } = error else { unreachable!() };
            source
        }
        other => panic!("{source}: {other:?}"),
    }
}

#[tokio::test]
async fn files_of_other_programs_are_read_with_their_headings_and_tables() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, limits());
    for name in ["handbook.docx", "faq.xlsx", "stock.xlsx", "tour.pptx", "rental.pdf"] {
        let added = knowledge.add(file(name)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(added.outcome, Outcome::Created, "{name}");
        assert_eq!(knowledge.add(file(name)).await.unwrap().outcome, Outcome::Unchanged, "{name}");
    }
    let brakes = best(&knowledge, "How often are disc brakes bled?").await;
    assert_eq!(brakes.source, "handbook.docx");
    assert!(brakes.heading.ends_with("Brakes") && brakes.text.contains("once a year"), "{brakes:?}");
    let price = best(&knowledge, "price for truing a wheel").await;
    assert!(price.heading.ends_with("Prices") && price.text.contains("| Truing a wheel | 22 euros |"), "{price:?}");
    let seat = best(&knowledge, "do you rent child seats").await;
    assert!(seat.exact && seat.text == "Yes, for 6 euros a day | helmets included." && seat.labels == ["rental"]);
    let tyre = best(&knowledge, "how wide is the Gravel King tyre").await;
    assert!(tyre.source == "stock.xlsx" && tyre.text.contains("43 mm"), "{tyre:?}");
    let tour = best(&knowledge, "when does the guided tour start").await;
    assert!(tour.source == "tour.pptx" && tour.text.contains("Saturday at 10:00"), "{tour:?}");
    let late = best(&knowledge, "what does a late return cost").await;
    assert_eq!((late.source.as_str(), late.title.as_str()), ("rental.pdf", "Terms of rental"));
    assert!(late.text.contains("After 24 hours"), "the paragraph's lines are joined: {late:?}");
}

#[tokio::test]
async fn files_without_readable_text_say_why() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, ExtractionSettings { pages_max: 1, ..limits() });
    let unreadable = |error| match error {
        ExtractError::Unreadable(reason) => reason,
        other => panic!("{other:?}"),
    };
    let of = async |document| unreadable(refusal(&knowledge, document).await);
    assert_eq!(of(file("scanned.pdf")).await, Unreadable::Scanned { pages: 1 });
    assert_eq!(of(file("locked.pdf")).await, Unreadable::Encrypted);
    assert_eq!(of(file("rental.pdf")).await, Unreadable::TooManyPages { pages: 2, max: 1 });
    assert!(matches!(of(named("a.pdf", "no PDF at all")).await, Unreadable::Damaged { .. }));
    assert!(matches!(of(named("a.docx", file("tour.pptx").bytes)).await, Unreadable::Damaged { .. }));
    let half = file("handbook.docx").bytes.split_off(18_000);
    assert!(matches!(of(named("half.docx", half)).await, Unreadable::Damaged { .. }));
    assert_eq!(of(named("a.html", "<html><body><script>x()</script></body></html>")).await, Unreadable::NoText);
    assert!(matches!(knowledge.add(named("a.pdf", "")).await, Err(IngestError::Empty { .. })));
    assert_eq!(knowledge.list(None).await.unwrap(), [], "nothing of them is kept");
}

#[tokio::test]
async fn a_file_that_takes_its_reader_down_takes_nothing_else() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, ExtractionSettings { memory_mib: 512, cpu_seconds: 10, ..limits() });
    // Nested so deep that walking it ends the stack, or the memory.
    let deep = format!("{}x{}", "<div>".repeat(600_000), "</div>".repeat(600_000));
    let error = refusal(&knowledge, named("deep.html", deep)).await;
    assert!(matches!(error, ExtractError::Crashed { .. } | ExtractError::Unreadable(_)), "{error:?}");
    assert!(error.is_the_files());
    knowledge.add(named("fine.html", "<h1>Shop</h1><p>We open at nine.</p>")).await.unwrap();

    let hasty = self::knowledge(&db.pool, ExtractionSettings { timeout_ms: 1_000, program: sleeper(), ..limits() });
    let error = refusal(&hasty, file("rental.pdf")).await;
    assert!(matches!(error, ExtractError::TimedOut { .. }), "{error:?}");
    let wordy = self::knowledge(&db.pool, ExtractionSettings { output_bytes_max: 1_024, ..limits() });
    let text = format!("<p>{}</p>", "word ".repeat(1_000));
    let error = refusal(&wordy, named("long.html", text)).await;
    assert!(matches!(error, ExtractError::Unreadable(Unreadable::TooMuchText { max: 1_024 })), "{error:?}");
}

/// A program that takes its time, whatever it is told.
fn sleeper() -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let path = std::env::temp_dir().join(format!("frontdesk-sleeper-{}", std::process::id()));
    std::fs::write(&path, "#!/bin/sh\nexec /bin/sleep 60\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

#[tokio::test]
async fn a_host_whose_reader_is_missing_says_so_and_blames_no_file() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, ExtractionSettings { program: "/nowhere/frontdesk".into(), ..limits() });
    let error = refusal(&knowledge, file("rental.pdf")).await;
    assert!(matches!(error, ExtractError::NotStarted { .. }) && !error.is_the_files(), "{error:?}");
    // Text needs no reader.
    knowledge.add(named("a.md", "# Shop\n\nWe open at nine.")).await.unwrap();
}

#[tokio::test]
async fn a_reader_without_room_for_itself_blames_no_file() {
    // Less than the setting allows: what is left holds the reader, and not the thread that parses.
    let mut command = tokio::process::Command::new(program());
    command.args(["extract", "--format", "html", "--memory-mib", "48", "--cpu-seconds", "10"]);
    command.args(["--pages-max", "10", "--output-bytes-max", "4096"]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    tokio::io::AsyncWriteExt::write_all(&mut stdin, b"<h1>Shop</h1>").await.unwrap();
    drop(stdin);
    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["outcome"]["Err"]["kind"], "reader_failed", "{report}");
    let reason: Unreadable = serde_json::from_value(report["outcome"]["Err"].clone()).unwrap();
    let error = IngestError::Extract { source_name: "fine.html".to_owned(), source: ExtractError::Unreadable(reason) };
    assert!(!error.is_callers_fault() && error.to_string().contains("try again"), "{error}");
    // With the room that the settings give it, the same reader reads.
    Extractor::new(limits()).probe().await.unwrap();
}

#[tokio::test]
async fn damaged_files_are_refused_or_read_and_never_crash_the_host() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, limits());
    for name in ["handbook.docx", "faq.xlsx", "tour.pptx", "rental.pdf"] {
        let bytes = file(name).bytes;
        for round in 1..=4_usize {
            let mut broken = bytes.clone();
            // The same damage in every run.
            for step in 0..40 {
                let at = (step * 7_919 + round * 104_729) % broken.len();
                broken[at] ^= u8::try_from(1 + (step * round) % 255).unwrap();
            }
            match knowledge.add(named(&format!("{round}-{name}"), broken)).await {
                Ok(_) | Err(IngestError::Empty { .. }) => {}
                Err(IngestError::Extract { source, .. }) => assert!(source.is_the_files(), "{name}: {source:?}"),
                Err(other) => panic!("{name}: {other:?}"),
            }
        }
    }
}

/// A small file that unpacks to this many MiB.
fn bomb(mib: usize) -> Vec<u8> {
    let sheet = format!(
        "<worksheet xmlns=\"http://schemas.openxmlformats.org/spreadsheetml/2006/main\"><sheetData>{}</sheetData></worksheet>",
        "<row><c t=\"inlineStr\"><is><t>aaaaaaaaaaaaaaaaaaaaaaaa</t></is></c></row>".repeat(mib * (1 << 20) / 72)
    );
    repacked("stock.xlsx", &[("xl/worksheets/sheet1.xml", sheet.into_bytes())])
}

/// An Office file of the fixtures with some of its parts replaced.
fn repacked(name: &str, parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    use std::io::{Cursor, Write};
    let mut old = zip::ZipArchive::new(Cursor::new(file(name).bytes)).unwrap();
    let mut new = zip::ZipWriter::new(Cursor::new(Vec::new()));
    for at in 0..old.len() {
        let entry = old.by_index_raw(at).unwrap();
        if parts.iter().all(|(part, _)| entry.name().unwrap() != *part) {
            new.raw_copy_file(entry).unwrap();
        }
    }
    for (part, bytes) in parts {
        new.start_file(*part, zip::write::SimpleFileOptions::default()).unwrap();
        new.write_all(bytes).unwrap();
    }
    new.finish().unwrap().into_inner()
}

#[tokio::test]
async fn archives_that_unpack_to_more_than_they_may_are_refused_in_bounded_time() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, ExtractionSettings { timeout_ms: 60_000, ..limits() });
    let bombs = [
        ("sheet.xlsx", bomb(300)),
        ("empty.docx", repacked("handbook.docx", &[("word/document.xml", vec![b' '; 400 << 20])])),
        (
            "billion-laughs.docx",
            repacked(
                "handbook.docx",
                &[(
                    "word/document.xml",
                    format!(
                        "<!DOCTYPE l [<!ENTITY a \"{}\">{}]><w:document xmlns:w=\"x\"><w:body><w:p><w:r><w:t>&j;</w:t></w:r></w:p></w:body></w:document>",
                        "ha".repeat(1_000),
                        ('b'..='j')
                            .map(|c| {
                                let before = char::from_u32(u32::from(c) - 1).unwrap();
                                format!("<!ENTITY {c} \"{}\">", format!("&{before};").repeat(20))
                            })
                            .collect::<String>()
                    )
                    .into_bytes(),
                )],
            ),
        ),
    ];
    for (name, bytes) in bombs {
        assert!(bytes.len() < 4 << 20, "{name} is small: {}", bytes.len());
        let began = std::time::Instant::now();
        match knowledge.add(named(name, bytes)).await {
            Err(IngestError::Extract { source, .. }) => assert!(source.is_the_files(), "{name}: {source:?}"),
            Err(IngestError::Empty { .. } | IngestError::TooManyPassages { .. }) => {}
            // Entities that are not resolved cannot grow: the text is what stands in the file.
            Ok(added) => assert!(added.passages <= 1, "{name}: {added:?}"),
            other => panic!("{name}: {other:?}"),
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(90), "{name}");
    }
}

#[tokio::test]
async fn each_limit_of_the_reader_is_in_force() {
    // A reader that asks for memory, or computes, for ever: this very test program's stand-in is a shell.
    let db = fresh_database().await;
    let page = format!("<h1>Shop</h1>{}", "<p>We open at nine. </p>".repeat(60_000));
    let tight = knowledge(&db.pool, ExtractionSettings { memory_mib: 256, ..limits() });
    let big = format!("<table>{}</table>", "<tr><td>a</td><td>b</td></tr>".repeat(250_000));
    let error = refusal(&tight, named("big.html", big)).await;
    assert!(matches!(error, ExtractError::Crashed { .. }), "memory: {error:?}");
    let quick = knowledge(&db.pool, ExtractionSettings { cpu_seconds: 1, ..limits() });
    let heavy = format!("<div>{}</div>", "<ul><li><b>a</b><i>c</i></li></ul>".repeat(200_000));
    match quick.add(named("heavy.html", heavy)).await {
        Err(IngestError::Extract { source: ExtractError::Crashed { how, .. }, .. }) => {
            assert!(how.contains("time"), "{how}");
        }
        other => panic!("processor time: {other:?}"),
    }
    let fine = knowledge(&db.pool, limits());
    fine.add(named("fine.html", page)).await.unwrap();
}

#[tokio::test]
async fn texts_that_are_none_and_names_that_lie_are_refused_in_words() {
    let db = fresh_database().await;
    let knowledge = knowledge(&db.pool, limits());
    let cases: [(NewDocument, &str); 9] = [
        (named("latin1.txt", b"caf\xe9".to_vec()), "is not UTF-8: byte 0xe9 at offset 3 (line 1)"),
        (named("nul.md", "a\0b"), "NUL character at offset 1"),
        (named("empty.txt", " \n\u{feff} "), "is empty"),
        (named("word.pdf", file("handbook.docx").bytes), "begins with %PDF-"),
        (named("pdf.docx", file("rental.pdf").bytes), "no Office file"),
        (named("pdf.txt", file("rental.pdf").bytes), "is not UTF-8"),
        (named("archive.zip", file("handbook.docx").bytes), "format of \"archive.zip\" is not known"),
        (named("short.pdf", file("rental.pdf").bytes[..400].to_vec()), "cannot be read"),
        (named("faq.csv", "frage;antwort\na;b\n"), "has no column \"question\""),
    ];
    for (document, words) in cases {
        let source = document.source.clone();
        let error = knowledge.add(document).await.unwrap_err();
        assert!(error.to_string().contains(words), "{source}: {error}");
        assert!(error.is_callers_fault(), "{source}");
    }
}

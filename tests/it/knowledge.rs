//! Knowledge and answers on a real Postgres: what goes in, what is found, what is quoted.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chrono::{DateTime, Duration, Utc};
use frontdesk_server::answer::{DraftOutcome, DraftRequest, ModelSettings, PassageRef, drafter};
use frontdesk_server::knowledge::{
    Calibration, EmbedError, Embedder, EmbeddingSettings, ExtractionSettings, Format, Hit, IngestError, Knowledge,
    NewDocument, Outcome, Purpose, RetrievalSettings, SearchRequest, embedder,
};
use futures::future::BoxFuture;
use sqlx::PgPool;
use uuid::Uuid;

use crate::database::fresh_database;

const FAQ: &str = "\
question,answer,labels,language
Do you ship to Austria?,\"Yes, we ship to Austria and Germany. Delivery takes 2 to 4 working days.\",shipping,en
How much is shipping?,\"Shipping costs 4.90 EUR, and is free for orders from 50 EUR.\",shipping,en
Can I return opened tea?,\"Opened tea cannot be returned. Unopened tea can be returned within 30 days.\",returns,en
Which payment methods do you accept?,\"We accept Visa, Mastercard, PayPal and bank transfer.\",payment,en
Is your matcha organic?,\"Yes, our matcha comes from an organic farm in Uji and carries the EU organic label.\",products,en
Liefert ihr in die Schweiz?,\"Ja, wir liefern in die Schweiz. Der Versand kostet 9,90 CHF.\",shipping,de
";

const HANDBOOK: &str = "\
# Leaf and Kettle

## Opening hours

The shop is open Monday to Friday from 9:00 to 18:00. On Saturdays we close at 14:00. We are closed on Sundays.

## Storing tea

Keep tea in an airtight tin, away from light and spices. Green tea keeps its taste for one year.

## Prices

| Tea | 100 g |
|---|---|
| Sencha | 12.50 EUR |
| Darjeeling | 9.80 EUR |

## Workshops

Our tea tasting workshops take place every first Thursday of the month. Tickets cost 25 EUR.
";

fn at(time: &str) -> DateTime<Utc> {
    time.parse().unwrap()
}

fn now() -> DateTime<Utc> {
    at("2026-05-01T12:00:00Z")
}

fn document(source: &str, text: &str) -> NewDocument {
    NewDocument { source: source.to_owned(), bytes: text.as_bytes().to_vec(), ..NewDocument::default() }
}

fn ask(query: &str) -> SearchRequest {
    SearchRequest {
        page_id: Some("1".to_owned()),
        query: query.to_owned(),
        language: None,
        labels: Vec::new(),
        passage_languages: Vec::new(),
        limit: 5,
        now: now(),
    }
}

fn hash_knowledge(pool: &PgPool) -> Knowledge {
    let embedder = embedder(&EmbeddingSettings::default()).unwrap();
    let knowledge = Knowledge::new(pool.clone(), embedder, RetrievalSettings::default()).unwrap();
    let extraction = ExtractionSettings { program: crate::ingestion::program(), ..ExtractionSettings::default() };
    knowledge.with_extraction(extraction).unwrap()
}

async fn shop(pool: &PgPool) -> Knowledge {
    let knowledge = hash_knowledge(pool);
    assert!(knowledge.prepare().await.unwrap().index_built);
    knowledge.add(document("faq.csv", FAQ)).await.unwrap();
    knowledge.add(document("handbook.md", HANDBOOK)).await.unwrap();
    knowledge
}

async fn hits(knowledge: &Knowledge, query: &str) -> Vec<Hit> {
    knowledge.search(ask(query)).await.unwrap().hits
}

fn passage(hit: Hit) -> PassageRef {
    let text = if hit.heading.is_empty() { hit.title } else { format!("{} > {}", hit.title, hit.heading) };
    PassageRef {
        id: hit.passage_id.to_string(),
        title: text,
        source: hit.source,
        text: hit.text,
        question: hit.question,
        score: hit.score,
        language: hit.language,
    }
}

#[tokio::test]
async fn a_curated_question_is_answered_first_however_it_is_typed() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    for query in ["Do you ship to Austria?", "do you SHIP to austria", "  Do you ship, to Austria!! "] {
        let outcome = knowledge.search(ask(query)).await.unwrap();
        let first = &outcome.hits[0];
        assert!(first.exact && outcome.strategy.exact, "{query}");
        assert_eq!(first.score, 1.0);
        assert!(first.text.starts_with("Yes, we ship to Austria"));
    }
}

#[tokio::test]
async fn questions_find_their_passage_and_the_extractive_answerer_quotes_it() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    let answerer = drafter(&ModelSettings::default(), None).unwrap();
    for (question, expected) in [
        ("Hi! I live in Graz. Do you ship to Austria, please?", "ship to Austria"),
        ("what does shipping cost", "4.90 EUR"),
        ("I bought some tea but already opened it. Can opened tea be returned?", "Opened tea cannot be returned"),
        ("do you accept paypal", "PayPal"),
        ("is the matcha organic??", "organic farm"),
        ("When is the shop open on Saturdays?", "On Saturdays we close at 14:00."),
        ("How do I keep green tea?", "Keep tea in an airtight tin"),
        ("price of sencha", "Sencha"),
        ("When do tasting workshops take place?", "every first Thursday"),
        ("Liefert ihr auch in die Schweiz?", "Ja, wir liefern in die Schweiz."),
    ] {
        let hits = hits(&knowledge, question).await;
        let scores: Vec<(f32, String)> = hits.iter().map(|h| (h.score, h.text.chars().take(40).collect())).collect();
        assert!(hits[0].text.contains(expected), "{question}: {scores:?}");
        let request = DraftRequest {
            question: question.to_owned(),
            passages: hits.into_iter().map(passage).collect(),
            ..DraftRequest::default()
        };
        match answerer.draft(&request).await.unwrap() {
            DraftOutcome::Drafted(drafted) => {
                assert!(drafted.text.contains(expected), "{question}: {}", drafted.text);
                assert_eq!(drafted.evidence.supported, drafted.evidence.sentences);
            }
            DraftOutcome::Declined(declined) => panic!("{question}: {} {scores:?}", declined.reason),
        }
    }
}

#[tokio::test]
async fn questions_that_the_knowledge_does_not_answer_are_declined() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    let answerer = drafter(&ModelSettings::default(), None).unwrap();
    for question in [
        "Do you sell cars?",
        "Do you ship to Japan?",
        "What is the capital of France?",
        "Can I speak to your manager about a job?",
        "Is your coffee fair trade?",
        "How do I reset my password?",
        "Do you have gift cards?",
        "Verkauft ihr auch Fahrräder?",
        "¿Tenéis tienda en Madrid?",
        "asdf qwer",
        "Who won the football match on Sunday?",
        "Do you accept bitcoin?",
    ] {
        let hits = hits(&knowledge, question).await;
        let best = hits.first().map(|hit| (hit.score, hit.text.clone()));
        let passages = hits.into_iter().map(passage).collect();
        let request = DraftRequest { question: question.to_owned(), passages, ..DraftRequest::default() };
        let outcome = answerer.draft(&request).await.unwrap();
        assert!(matches!(outcome, DraftOutcome::Declined(_)), "{question}: {best:?}");
    }
}

#[tokio::test]
async fn a_document_is_created_then_unchanged_then_replaced() {
    let db = fresh_database().await;
    let knowledge = hash_knowledge(&db.pool);
    let created = knowledge.add(document("faq.csv", FAQ)).await.unwrap();
    assert_eq!((created.outcome, created.passages), (Outcome::Created, 6));
    let before = hits(&knowledge, "How much is shipping?").await[0].passage_id;

    let again = knowledge.add(document("faq.csv", FAQ)).await.unwrap();
    assert_eq!((again.outcome, again.document_id, again.passages), (Outcome::Unchanged, created.document_id, 6));

    let changed = FAQ.replace("Visa, ", "") + "New?,Yes.,,en\n";
    let replaced = knowledge.add(document("faq.csv", &changed)).await.unwrap();
    assert_eq!(
        (replaced.outcome, replaced.document_id, replaced.passages),
        (Outcome::Replaced, created.document_id, 7)
    );
    assert_eq!(
        hits(&knowledge, "How much is shipping?").await[0].passage_id,
        before,
        "an unchanged passage keeps its id"
    );
    assert!(!hits(&knowledge, "Which payment methods do you accept?").await[0].text.contains("Visa"));

    let relabelled = NewDocument { labels: vec!["x".to_owned()], ..document("faq.csv", &changed) };
    assert_eq!(knowledge.add(relabelled).await.unwrap().outcome, Outcome::Replaced);

    let listed = knowledge.list(Some("1")).await.unwrap();
    assert_eq!(listed.len(), 1);
    assert_eq!(
        (listed[0].passages, listed[0].format.as_str(), listed[0].labels.as_slice()),
        (7, "csv-faq", &["x".to_owned()][..])
    );
}

#[tokio::test]
async fn deleting_really_deletes() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    for document in knowledge.list(None).await.unwrap() {
        assert!(knowledge.delete(document.document_id).await.unwrap());
        assert!(!knowledge.delete(document.document_id).await.unwrap());
    }
    assert!(hits(&knowledge, "Do you ship to Austria?").await.is_empty());
    for table in ["documents", "passages", "passage_lexemes"] {
        let count = format!("select count(*) from {table}");
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(count)).fetch_one(&db.pool).await.unwrap();
        assert_eq!(count, 0, "{table}");
    }
}

#[tokio::test]
async fn lexeme_counts_stay_true_through_concurrent_changes() {
    let db = fresh_database().await;
    let knowledge = Arc::new(hash_knowledge(&db.pool));
    for round in 0..3 {
        let adds = (0..6).map(|n| {
            let knowledge = Arc::clone(&knowledge);
            let scope = (n % 2 == 0).then(|| "1".to_owned());
            let text = HANDBOOK.replace("tea", &format!("tea{}", (n + round) % 4));
            tokio::spawn(async move {
                let source = format!("{}.md", n / 2);
                knowledge.add(NewDocument { page_id: scope, ..document(&source, &text) }).await.unwrap();
            })
        });
        for add in adds.collect::<Vec<_>>() {
            add.await.unwrap();
        }
    }
    let documents = knowledge.list(None).await.unwrap();
    assert_eq!(documents.len(), 6);
    knowledge.delete(documents[0].document_id).await.unwrap();
    let wrong: i64 = sqlx::query_scalar(
        "with truth as (
             select coalesce(p.page_id, '') as scope, p.ts_config, l.lexeme, count(*) as passages from passages p
              cross join lateral (select unnest(tsvector_to_array(p.tsv)) union all select '') l (lexeme) group by 1, 2, 3)
         select count(*) from truth t full join passage_lexemes c using (scope, ts_config, lexeme)
          where t.passages is distinct from c.passages",
    )
    .fetch_one(&db.pool)
    .await
    .unwrap();
    assert_eq!(wrong, 0);
}

#[tokio::test]
async fn pages_labels_languages_and_validity_filter() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    let other =
        NewDocument { page_id: Some("2".to_owned()), ..document("other.txt", "Our secret is lemongrass syrup.") };
    knowledge.add(other).await.unwrap();
    let query = "lemongrass syrup";
    assert!(hits(&knowledge, query).await.iter().all(|hit| hit.source != "other.txt"), "another Page's knowledge");
    let of_two = knowledge.search(SearchRequest { page_id: Some("2".to_owned()), ..ask(query) }).await.unwrap();
    assert_eq!(of_two.hits[0].source, "other.txt");

    let labelled = knowledge.search(SearchRequest { labels: vec!["payment".to_owned()], ..ask("shipping to Austria") });
    assert!(labelled.await.unwrap().hits.iter().all(|hit| hit.labels == ["payment"]));
    let german = SearchRequest { passage_languages: vec!["de".to_owned()], ..ask("Do you ship to Austria?") };
    let german = knowledge.search(german).await.unwrap().hits;
    assert!(!german.is_empty() && german.iter().all(|hit| hit.language.as_deref() == Some("de")));

    let sale = NewDocument {
        valid_from: Some(now() - Duration::days(1)),
        valid_until: Some(now() + Duration::days(1)),
        ..document("sale.txt", "Spring sale: oolong at half price.")
    };
    knowledge.add(sale).await.unwrap();
    for (days, found) in [(-2, false), (-1, true), (0, true), (1, false)] {
        let when = SearchRequest { now: now() + Duration::days(days), ..ask("oolong spring sale") };
        let hits = knowledge.search(when).await.unwrap().hits;
        assert_eq!(hits.iter().any(|hit| hit.source == "sale.txt"), found, "{days} days");
    }
}

#[tokio::test]
async fn formats_are_read_and_their_structure_is_kept() {
    let db = fresh_database().await;
    let knowledge = hash_knowledge(&db.pool);
    let html = "<html><head><title>Tea &amp; more</title><style>x{}</style></head><body><nav>Home</nav><h1>Care</h1>\
                <h2>Kettles</h2><p>Descale the kettle <b>monthly</b>.</p><script>alert(1)</script>\
                <table><tr><th>Part</th><th>Price</th></tr><tr><td>Lid</td><td>7 EUR</td></tr></table></body></html>";
    knowledge.add(document("care.html", html)).await.unwrap();
    let found = hits(&knowledge, "descale the kettle").await;
    assert_eq!((found[0].title.as_str(), found[0].heading.as_str()), ("Tea & more", "Care > Kettles"));
    assert!(found[0].text.contains("monthly") && !found[0].text.contains("alert"));
    let table = hits(&knowledge, "price of the lid").await;
    assert!(table[0].text.contains("| Lid"), "{}", table[0].text);
    assert!(
        hits(&knowledge, "alert home")
            .await
            .iter()
            .all(|hit| !hit.text.contains("alert") && !hit.text.contains("Home"))
    );

    let text = NewDocument {
        format: Some(Format::Text),
        ..document("https://tea.example/about", "\u{feff}We were founded in 1982.")
    };
    let added = knowledge.add(text).await.unwrap();
    assert_eq!(added.passages, 1);
    assert_eq!(hits(&knowledge, "When were you founded?").await[0].text, "We were founded in 1982.");
}

#[tokio::test]
async fn documents_that_cannot_be_read_say_why_and_change_nothing() {
    let db = fresh_database().await;
    let knowledge = hash_knowledge(&db.pool);
    let bytes = |source: &str, bytes: &[u8]| NewDocument { bytes: bytes.to_vec(), ..document(source, "") };
    for (document, message) in [
        (document("notes.xls", "x"), "the format of \"notes.xls\" is not known"),
        (document("empty.md", " \n\n "), "\"empty.md\" is empty"),
        (document("faq.csv", "question,answer\n"), "\"faq.csv\" is empty"),
        (bytes("latin.txt", b"first line\ncaf\xe9"), "byte 0xe9 at offset 14 (line 2)"),
        (bytes("binary.txt", b"a\0b"), "NUL character at offset 1 (line 1)"),
        (bytes("big.txt", &vec![b'a'; 8 * 1024 * 1024 + 1]), "has 8388609 bytes"),
        (document("", "x"), "source has 0 characters"),
        (
            NewDocument { language: Some("klingon".to_owned()), ..document("a.txt", "x") },
            "language \"klingon\" is not known",
        ),
        (
            NewDocument { valid_from: Some(now()), valid_until: Some(now()), ..document("a.txt", "x") },
            "is not after valid_from",
        ),
    ] {
        let error = knowledge.add(document).await.unwrap_err();
        assert!(error.to_string().contains(message), "{error}");
        assert!(error.is_callers_fault());
    }
    assert!(knowledge.list(None).await.unwrap().is_empty());
}

#[tokio::test]
async fn questions_without_words_and_odd_questions_do_no_harm() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    assert!(hits(&knowledge, "").await.is_empty());
    for query in
        ["???", "👍", "'; drop table passages; --", "a & b | !c <-> (d", "\0\0", "\\ ' \"", &"tea ".repeat(5_000)]
    {
        let found = knowledge.search(ask(query)).await.unwrap();
        assert!(found.hits.len() <= 5);
    }
    assert!(!hits(&knowledge, "Do you ship to Austria?").await.is_empty());
}

#[tokio::test]
async fn the_same_data_gives_the_same_order() {
    let db = fresh_database().await;
    let other = fresh_database().await;
    let (a, b) = (shop(&db.pool).await, shop(&other.pool).await);
    for query in ["tea", "shipping", "organic tea price", "EUR"] {
        let texts = |hits: Vec<Hit>| hits.into_iter().map(|hit| (hit.text, hit.score)).collect::<Vec<_>>();
        assert_eq!(texts(hits(&a, query).await), texts(hits(&b, query).await), "{query}");
    }
}

#[tokio::test]
async fn many_replicas_prepare_at_once_and_one_builds() {
    let db = fresh_database().await;
    let all = futures::future::join_all((0..4).map(|_| {
        let knowledge = hash_knowledge(&db.pool);
        async move { knowledge.prepare().await.unwrap().index_built }
    }));
    assert_eq!(all.await.into_iter().filter(|built| *built).count(), 1);
    let valid: Vec<bool> = sqlx::query_scalar(
        "select i.indisvalid from pg_index i join pg_class c on c.oid = i.indexrelid where c.relname like 'passages_hnsw_%'",
    )
    .fetch_all(&db.pool)
    .await
    .unwrap();
    assert_eq!(valid, [true]);
}

#[tokio::test]
async fn the_vector_index_serves_the_search() {
    let db = fresh_database().await;
    let knowledge = shop(&db.pool).await;
    let definition: String =
        sqlx::query_scalar("select indexdef from pg_indexes where indexname like 'passages_hnsw_%'")
            .fetch_one(&db.pool)
            .await
            .unwrap();
    assert!(definition.contains("halfvec_cosine_ops") && definition.contains("hash-1024-v1"), "{definition}");
    // An interrupted build leaves an invalid index; the next start must not trust it.
    sqlx::query("update pg_index set indisvalid = false where indexrelid = (select oid from pg_class where relname like 'passages_hnsw_%')")
        .execute(&db.pool)
        .await
        .unwrap();
    assert!(knowledge.prepare().await.unwrap().index_built);
    assert!(!knowledge.prepare().await.unwrap().index_built);
}

#[tokio::test]
async fn a_new_model_makes_passages_stale_until_they_are_embedded_again() {
    let db = fresh_database().await;
    shop(&db.pool).await;
    let small = embedder(&EmbeddingSettings::Hash { dimensions: 256 }).unwrap();
    let knowledge = Knowledge::new(db.pool.clone(), small, RetrievalSettings::default()).unwrap();
    let stale = knowledge.prepare().await.unwrap().stale_passages;
    assert!(stale > 6);
    assert!(!hits(&knowledge, "price of sencha").await.is_empty(), "full text still finds them");
    let mut done = 0;
    loop {
        match knowledge.reembed(4).await.unwrap() {
            0 => break,
            made => done += made,
        }
    }
    assert_eq!(done, stale);
    assert_eq!(knowledge.prepare().await.unwrap().stale_passages, 0);
    assert!(hits(&knowledge, "price of sencha").await[0].vector_score > 0.0);
}

#[tokio::test]
async fn the_old_model_serves_until_the_new_one_can() {
    let db = fresh_database().await;
    let under = |settings: EmbeddingSettings| {
        let embedder = embedder(&settings).unwrap();
        let knowledge = Knowledge::new(db.pool.clone(), embedder, RetrievalSettings::default()).unwrap();
        knowledge.with_change_of_model(settings)
    };
    let model = async |knowledge: &Knowledge| knowledge.search(ask("price of sencha")).await.unwrap().strategy.model;
    let nearness = async |knowledge: &Knowledge, question: &str| hits(knowledge, question).await[0].vector_score;
    let old = under(EmbeddingSettings::Hash { dimensions: 512 });
    old.prepare().await.unwrap();
    old.add(document("faq.csv", FAQ)).await.unwrap();
    old.add(document("handbook.md", HANDBOOK)).await.unwrap();
    let old_model = model(&old).await;

    let new = under(EmbeddingSettings::Hash { dimensions: 256 });
    let missing = new.prepare().await.unwrap().stale_passages;
    assert!(missing > 6);
    assert_eq!(model(&new).await, old_model, "the old one serves");
    let before = nearness(&new, "price of sencha").await;
    assert!(before > 0.0 && before == nearness(&old, "price of sencha").await);
    assert_eq!(new.reembed(4).await.unwrap(), 4);
    assert_eq!(model(&new).await, old_model, "some vectors are not enough");
    // What comes meanwhile is found at once.
    new.add(document("new.md", "# Kettles\n\nOur kettles hold two litres of water.")).await.unwrap();
    assert!(nearness(&new, "how much water do kettles hold").await > 0.0);
    // A process that starts in the middle goes on; the old vectors were not touched.
    let successor = under(EmbeddingSettings::Hash { dimensions: 256 });
    assert_eq!(successor.prepare().await.unwrap().stale_passages, missing - 4 + 1);
    while successor.reembed(4).await.unwrap() > 0 {}
    let new_model = model(&successor).await;
    assert_ne!(new_model, old_model, "all vectors are there");
    assert!(nearness(&successor, "price of sencha").await > 0.0);
    assert!(nearness(&successor, "how much water do kettles hold").await > 0.0);
    let indexes: i64 = sqlx::query_scalar("select count(*) from pg_class where relname like 'passages_hnsw%'")
        .fetch_one(&db.pool)
        .await
        .unwrap();
    assert_eq!(indexes, 2, "each has an index of its own");
    // The other process follows when it finds nothing left to do, and one that still runs the old model finds what it knew.
    assert_eq!(new.reembed(4).await.unwrap(), 0);
    assert_eq!(model(&new).await, new_model);
    assert_eq!(nearness(&old, "price of sencha").await, before);

    // A restart with the same settings changes nothing; what is added has the new model's vectors.
    let again = under(EmbeddingSettings::Hash { dimensions: 256 });
    assert_eq!(again.prepare().await.unwrap().stale_passages, 0);
    assert_eq!(model(&again).await, new_model);
    again.add(document("cups.md", "# Cups\n\nOur cups are made of glass.")).await.unwrap();
    assert_eq!(again.prepare().await.unwrap().stale_passages, 0);

    // A model that cannot be had any more serves no longer: the new one begins with full text.
    sqlx::query("update embedding_models set settings = '{\"provider\": \"gone\"}' where serves")
        .execute(&db.pool)
        .await
        .unwrap();
    let third = under(EmbeddingSettings::Hash { dimensions: 128 });
    assert!(third.prepare().await.unwrap().stale_passages > 0);
    assert!(![&old_model, &new_model].contains(&&model(&third).await));
    assert!(!hits(&third, "price of sencha").await.is_empty());
}

/// Counts what it embeds, and can be told to fail.
#[derive(Debug, Default)]
struct Counting {
    texts: AtomicUsize,
    fail: bool,
}

impl Embedder for Counting {
    fn model_id(&self) -> &str {
        "o'counting \"model\""
    }
    fn dimensions(&self) -> usize {
        8
    }
    fn calibration(&self) -> Calibration {
        Calibration::SEMANTIC
    }
    fn embed<'a>(&'a self, texts: &'a [String], _: Purpose) -> BoxFuture<'a, Result<Vec<Vec<f32>>, EmbedError>> {
        Box::pin(async move {
            if self.fail {
                return Err(EmbedError::Inference { reason: "told to".to_owned() });
            }
            self.texts.fetch_add(texts.len(), Ordering::Relaxed);
            Ok(texts.iter().map(|_| vec![(1.0_f32 / 8.0).sqrt(); 8]).collect())
        })
    }
}

#[tokio::test]
async fn vectors_are_cached_by_content() {
    let db = fresh_database().await;
    let counting = Arc::new(Counting::default());
    let knowledge = Knowledge::new(db.pool.clone(), counting.clone(), RetrievalSettings::default()).unwrap();
    knowledge.prepare().await.unwrap();
    let document_id = knowledge.add(document("faq.csv", FAQ)).await.unwrap().document_id;
    assert_eq!(counting.texts.load(Ordering::Relaxed), 6);
    knowledge.delete(document_id).await.unwrap();
    knowledge.add(document("copy.csv", &FAQ.replace("Visa", "Amex"))).await.unwrap();
    assert_eq!(counting.texts.load(Ordering::Relaxed), 7, "only the changed row is embedded");
    assert_eq!(knowledge.forget_cached_vectors(Utc::now() + Duration::hours(1)).await.unwrap(), 7);
}

#[tokio::test]
async fn a_failing_embedder_stores_nothing() {
    let db = fresh_database().await;
    let failing = Arc::new(Counting { fail: true, ..Counting::default() });
    let knowledge = Knowledge::new(db.pool.clone(), failing, RetrievalSettings::default()).unwrap();
    let error = knowledge.add(document("faq.csv", FAQ)).await.unwrap_err();
    assert!(matches!(error, IngestError::Embed(_)) && !error.is_callers_fault());
    assert!(knowledge.list(None).await.unwrap().is_empty());
    assert!(!knowledge.delete(Uuid::nil()).await.unwrap());
}

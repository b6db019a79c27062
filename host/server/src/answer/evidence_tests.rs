use super::*;

fn passage(id: &str, text: &str) -> PassageRef {
    PassageRef {
        id: id.to_owned(),
        text: text.to_owned(),
        score: 0.9,
        language: Some("en".to_owned()),
        ..PassageRef::default()
    }
}

fn shop() -> Vec<PassageRef> {
    vec![
        passage(
            "ship",
            "We ship to Austria and Germany within 3 working days. Shipping costs 4,90 EUR. We do not ship to Japan.",
        ),
        passage(
            "return",
            "You can return unopened tea within 30 days. Write to help@tea.example or see https://tea.example/returns.",
        ),
    ]
}

async fn gated(sentences: &[(&str, &[&str])]) -> Gated {
    let drafted = sentences.iter().map(|(text, ids)| DraftedSentence {
        text: (*text).to_owned(),
        passage_ids: ids.iter().map(|id| (*id).to_owned()).collect(),
    });
    gate(drafted.collect(), &shop(), None, EvidenceSettings::default()).await.unwrap()
}

#[tokio::test]
async fn supported_sentences_pass() {
    for (text, id) in [
        ("We ship to Austria within 3 working days.", "ship"),
        ("Shipping to Germany costs €4.90.", "ship"),
        ("No, we don't ship to Japan.", "ship"),
        ("You can return unopened tea within 30 days.", "return"),
        ("Please write to help@tea.example.", "return"),
        ("See tea.example/returns for returns.", "return"),
        ("Delivery to Austria takes three working days.", "ship"),
    ] {
        let gated = gated(&[(text, &[id])]).await;
        assert_eq!(gated.cut, [], "{text}");
        assert!(gated.kept[0].factual && gated.kept[0].support >= 0.6);
        assert!(gated.evidence.confidence > 0.5, "{text} {:?}", gated.evidence);
    }
}

#[tokio::test]
async fn invented_facts_are_cut() {
    for (text, ids) in [
        ("We ship to Austria within 2 working days.", &["ship"][..]),
        ("Shipping costs 5.90 EUR.", &["ship"]),
        ("We offer a loyalty programme with cashback.", &["ship"]),
        ("Write to support@tea.example.", &["return"]),
        ("Details are on https://evil.example/returns.", &["return"]),
        ("We ship to Japan.", &["ship"]),
        ("We do not ship to Austria and Germany.", &["ship"]),
        ("You can return unopened tea within 30 days.", &["ship"]),
        ("Our manager Bob owns three elephants.", &[]),
        ("The warranty lasts 30 years.", &["return"]),
        // One invented thing among what is true.
        ("We ship to Austria, Germany and France within 3 working days.", &["ship"]),
        ("We ship to Austria and Germany by drone.", &["ship"]),
        ("We ship to Austria within two working days.", &["ship"]),
        ("Unopened tea can be returned to Harrods within 30 days.", &["return"]),
    ] {
        let gated = gated(&[(text, ids)]).await;
        assert_eq!(gated.kept, [], "{text}");
        assert!(gated.cut[0].problem.is_some());
        assert!(!gated.has_facts());
        assert_eq!(gated.evidence.confidence, 0.0);
    }
}

#[tokio::test]
async fn numbers_of_something_else_are_cut() {
    let table = "- Austria: 4.90 EUR, 1 to 3 days\n- Germany: 6.90 EUR, 2 to 4 days\n- Monday to Friday: 9:00 to 18:00\n- Saturday: 10:00 to 13:00";
    let mut passages = vec![passage("prices", table)];
    passages.push(PassageRef { title: "Bicycles: Flaneur".into(), ..passage("flaneur", "It costs 1190 EUR.") });
    passages.push(PassageRef { title: "Bicycles: Fernweh".into(), ..passage("fernweh", "It costs 1690 EUR.") });
    for (text, is_said) in [
        ("A parcel to Germany costs 6.90 EUR.", true),
        ("A parcel to Germany costs 4.90 EUR.", false),
        ("To Austria it takes 2 to 4 days.", false),
        ("Austria 4.90 EUR and Germany 6.90 EUR.", true),
        ("On Tuesday: 9:00 to 18:00.", true),
        ("On Saturday: 9:00 to 18:00.", false),
        ("The Fernweh costs 1690 EUR.", true),
        ("The Fernweh costs 1190 EUR.", false),
    ] {
        let sentence = DraftedSentence { text: text.to_owned(), passage_ids: Vec::new() };
        let gated = gate(vec![sentence], &passages, None, EvidenceSettings { support_min: 0.5 }).await.unwrap();
        assert_eq!(gated.has_facts(), is_said, "{text} {:?}", gated.cut);
    }
}

#[tokio::test]
async fn courtesies_stay_and_count_for_nothing() {
    let gated =
        gated(&[("Hello Anna!", &[]), ("We ship to Austria.", &["ship"]), ("We also sell cars.", &["ship"])]).await;
    assert_eq!(gated.kept.iter().map(|s| s.text.as_str()).collect::<Vec<_>>(), ["Hello Anna!", "We ship to Austria."]);
    assert_eq!((gated.evidence.sentences, gated.evidence.supported), (2, 1));
    // share 1/2 * support 1 * (0.5 + 0.5 * 0.9)
    assert!((gated.evidence.confidence - 0.475).abs() < 1e-3, "{:?}", gated.evidence);
}

#[tokio::test]
async fn a_sentence_without_citation_is_held_against_all_passages_and_gets_one() {
    let gated = gated(&[("You can return tea within 30 days.", &[]), ("We ship to Germany.", &["unknown"])]).await;
    assert_eq!(gated.kept[0].passage_ids, ["return"]);
    assert_eq!(gated.kept[1].passage_ids, ["ship"]);
}

#[tokio::test]
async fn another_language_needs_an_embedder_that_understands() {
    let drafted = || {
        vec![DraftedSentence {
            text: "Sie können ungeöffneten Tee innerhalb von 30 Tagen zurückgeben.".to_owned(),
            passage_ids: vec!["return".to_owned()],
        }]
    };
    let settings = EvidenceSettings::default();
    assert!(!gate(drafted(), &shop(), None, settings).await.unwrap().has_facts());
    let hash = crate::knowledge::embedder(&crate::knowledge::EmbeddingSettings::default()).unwrap();
    assert!(!gate(drafted(), &shop(), Some(&hash), settings).await.unwrap().has_facts());
    let constant: Arc<dyn Embedder> = Arc::new(Constant);
    assert!(gate(drafted(), &shop(), Some(&constant), settings).await.unwrap().has_facts());
    // The embedder cannot vouch for a number.
    let wrong = vec![DraftedSentence {
        text: "Sie können ungeöffneten Tee innerhalb von 60 Tagen zurückgeben.".to_owned(),
        passage_ids: vec!["return".to_owned()],
    }];
    assert!(!gate(wrong, &shop(), Some(&constant), settings).await.unwrap().has_facts());
}

/// Finds everything alike, as a model that understands both languages would here.
#[derive(Debug)]
struct Constant;

impl Embedder for Constant {
    fn model_id(&self) -> &str {
        "constant"
    }
    fn dimensions(&self) -> usize {
        2
    }
    fn calibration(&self) -> crate::knowledge::Calibration {
        crate::knowledge::Calibration::SEMANTIC
    }
    fn embed<'a>(
        &'a self,
        texts: &'a [String],
        _: Purpose,
    ) -> futures::future::BoxFuture<'a, Result<Vec<Vec<f32>>, crate::knowledge::EmbedError>> {
        Box::pin(async move { Ok(texts.iter().map(|_| vec![1.0, 0.0]).collect()) })
    }
}

#[test]
fn a_bound_is_no_denial() {
    for (text, denies) in [
        ("We do not ship to Japan.", true),
        ("Bicycles ridden no more than five kilometres.", false),
        ("Nicht nur samstags.", false),
        ("We no longer ship to Japan.", true),
        ("Wir liefern nicht mehr nach Japan.", true),
        ("No, not on Sunday.", true),
    ] {
        assert_eq!(is_negated(text), denies, "{text}");
    }
}

#[test]
fn numbers_and_addresses_have_one_form() {
    for (a, b) in
        [("4,90 €", "EUR 4.90"), ("1.000,50", "1,000.5"), ("1'000", "1000"), ("3-5 days", "3 to 5"), ("30 Tage.", "30")]
    {
        assert_eq!(exacts(a), exacts(b), "{a} {b}");
    }
    assert_eq!(exacts("see https://www.Tea.example/a/ or a@b.example."), ["tea.example/a", "a@b.example"]);
    assert_eq!(exacts("e.g. green tea, etc. and so on"), Vec::<String>::new());
    assert_ne!(exacts("14:30"), exacts("14:00"));
}

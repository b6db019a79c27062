use frontdesk_policy_sdk::export::State;
use frontdesk_policy_sdk::testing::{passage, turn};
use serde_json::{Value, json};

use super::*;

const SHIPPED: &str = include_str!("../../../policies/default/filter-safety.toml");

fn configured(change: impl FnOnce(&mut Value)) -> Result<State<FilterSafety>, Vec<SettingError>> {
    let mut document: Value = toml::from_str(SHIPPED).unwrap();
    document["links"]["allowed-hosts"] = json!(["alpenrad.example", "*.shop.example"]);
    document["pii"]["allowed"] = json!(["hello@alpenrad.example", "+43 1 234 56 78"]);
    change(&mut document);
    let state = State::new();
    state.configure(&document.to_string()).map(|()| state)
}

fn draft(text: &str) -> Draft {
    Draft { text: text.to_owned(), language: None, cited: Vec::new(), instructions: Vec::new() }
}

fn judge_with(change: impl FnOnce(&mut Value), draft: &Draft) -> Verdict {
    let passages = [passage("p1", "Call the workshop: 0664 123 45 67, or see https://maps.example/alpenrad.", 0.9)];
    let state = match configured(change) {
        Ok(state) => state,
        Err(errors) => panic!("{errors:#?}"),
    };
    let verdict = state.get().unwrap().apply(&turn("my mail is anna@web.example"), draft, &passages).unwrap();
    for finding in &verdict.findings {
        if let Some((start, end)) = finding.at {
            assert!(draft.text.get(start as usize..end as usize).is_some(), "{finding:?}");
        }
    }
    verdict
}

fn judge(text: &str) -> Verdict {
    judge_with(|_| (), &draft(text))
}

/// `pass`, the rewritten text, or `BLOCK`.
fn outcome(verdict: &Verdict) -> &str {
    match &verdict.outcome {
        Outcome::Pass => "pass",
        Outcome::Rewrite(rewritten) => &rewritten.text,
        Outcome::Block(_) => "BLOCK",
    }
}

fn rules(verdict: &Verdict) -> Vec<&str> {
    verdict.findings.iter().map(|finding| finding.rule.as_str()).collect()
}

#[test]
fn shipped_settings_fit_the_schema() {
    let schema: Value = serde_json::from_str(&FilterSafety::describe().settings_schema).unwrap();
    let validator = jsonschema::draft202012::new(&schema).unwrap();
    let document: Value = toml::from_str(SHIPPED).unwrap();
    let mistakes: Vec<String> =
        validator.iter_errors(&document).map(|e| format!("{}: {e}", e.instance_path())).collect();
    assert_eq!(mistakes, [] as [String; 0]);
    if let Err(errors) = State::<FilterSafety>::new().configure(&document.to_string()) {
        panic!("{errors:#?}");
    }
}

#[test]
fn harmless_drafts_pass_unchanged() {
    for text in [
        "We ship to Austria, Germany and Switzerland within 2-4 working days for 4.90 euros.",
        "Yes, 9:00 to 13:00 on Saturdays. The next free date is 22.11.2026.",
        "Order #1234567 belongs to 2026-11-22, article 100-200-30.",
        "Wir liefern in 2 bis 4 Werktagen. Der Versand kostet 4,90 €.",
        "We cannot guarantee delivery by Friday, but most parcels arrive within three days.",
        "If the product is faulty, you will receive a refund after our workshop has checked it.",
        "La entrega tarda de 2 a 4 días.",
        "Nous livrons sous 2 à 4 jours ouvrés. C'est compris dans le prix.",
        "5 * 3 = 15 and snake_case_name stay, and so does 2 * 2.",
        "",
    ] {
        let verdict = judge(text);
        assert_eq!(outcome(&verdict), if text.is_empty() { "BLOCK" } else { "pass" }, "{text}: {verdict:?}");
    }
}

#[test]
fn links_go_only_to_allowed_hosts() {
    let table = [
        ("See https://alpenrad.example/shipping.", "pass", None),
        ("See www.alpenrad.example now", "pass", None),
        ("See https://a.shop.example/x", "pass", None),
        ("See https://maps.example/alpenrad", "pass", None),
        ("See https://evil.example/x for more.", "See for more.", Some("link:not-allowed")),
        ("Go to bit.ly/abc, please.", "Go to, please.", Some("link:not-allowed")),
        ("See https://alpenrad.example@evil.example/", "See", Some("link:user-info")),
        ("See https://alpenrad.example.evil.example/", "See", Some("link:not-allowed")),
        ("See http://10.0.0.1/", "See", Some("link:number")),
        ("See https://аlpenrad.example/", "See", Some("link:look-alike")),
        ("See https://xn--lpenrad-4ve.example/", "See", Some("link:not-allowed")),
        ("Read [our page](https://evil.example/x).", "Read our page.", Some("link:not-allowed")),
        ("Read [our page](https://alpenrad.example/x).", "Read our page: https://alpenrad.example/x.", None),
        ("Click [here](javascript:alert(1)).", "Click here.", Some("link:dangerous")),
        ("evil[.]example/path is it", "is it", Some("link:disguised")),
    ];
    for (text, expected, rule) in table {
        let verdict = judge(text);
        assert_eq!(outcome(&verdict), expected, "{text}: {verdict:?}");
        assert_eq!(rules(&verdict).first().copied(), rule, "{text}");
    }
    let blocking = judge_with(|settings| settings["links"]["action"] = "block".into(), &draft("See evil.com"));
    assert_eq!(outcome(&blocking), "BLOCK");
}

#[test]
fn personal_data_is_sent_only_when_it_is_known() {
    let table = [
        ("Your card 4111 1111 1111 1111 is saved.", "BLOCK", Some("pii:card")),
        ("Your card 4111 1111 1111 1112 is saved.", "pass", None),
        ("Pay to AT61 1904 3002 3457 3201.", "BLOCK", Some("pii:iban")),
        ("Pay to DE89370400440532013000.", "BLOCK", Some("pii:iban")),
        ("Pay to DE89370400440532013001.", "pass", None),
        ("Write to hello@alpenrad.example.", "pass", None),
        ("We write to anna@web.example.", "pass", None),
        ("Write to boss@other.example.", "Write to [removed].", Some("pii:email")),
        ("Call 0664 123 45 67.", "pass", None),
        ("Call 0664/1234567 now.", "pass", None),
        ("Call +43 1 2345678.", "pass", None),
        ("Call 0043 1 234 56 78.", "pass", None),
        ("Call +49 30 901820 today.", "Call [removed] today.", Some("pii:phone")),
        ("Call 0699 111 22 33.", "Call [removed].", Some("pii:phone")),
        ("Call (555) 234-5678.", "Call [removed].", Some("pii:phone")),
        ("Call 555-234-5678.", "Call [removed].", Some("pii:phone")),
    ];
    for (text, expected, rule) in table {
        let verdict = judge(text);
        assert_eq!(outcome(&verdict), expected, "{text}: {verdict:?}");
        assert_eq!(rules(&verdict).first().copied(), rule, "{text}");
        for finding in &verdict.findings {
            assert!(!finding.detail.contains(|c: char| c.is_ascii_digit()), "a finding must not repeat personal data");
        }
    }
}

#[test]
fn offensive_words_and_leaks_are_blocked() {
    for (text, rule) in [
        ("You are an idiot.", "toxicity"),
        ("Das ist Scheiße!", "toxicity"),
        ("Vete a la mierda.", "toxicity"),
        ("Ta gueule !", "toxicity"),
        ("Sh1t happens", "toxicity"),
        ("As an AI language model, I cannot say.", "leakage:phrase"),
        ("My system prompt says hello.", "leakage:phrase"),
        ("Als KI-Sprachmodell kann ich das nicht.", "leakage:phrase"),
        ("Como modelo de lenguaje, no puedo.", "leakage:phrase"),
        ("En tant qu'IA, je ne peux pas.", "leakage:phrase"),
    ] {
        let verdict = judge(text);
        assert_eq!(outcome(&verdict), "BLOCK", "{text}: {verdict:?}");
        assert!(rules(&verdict).contains(&rule), "{text}: {verdict:?}");
    }
}

#[test]
fn promises_are_taken_out_with_their_sentence() {
    let table = [
        (
            "Returns take two weeks. We guarantee a full refund. Anything else?",
            "Returns take two weeks. Anything else?",
            "promise:refund",
        ),
        ("Hello! Your order will arrive tomorrow.", "Hello!", "promise:delivery-date"),
        ("Gern. Wir garantieren die Lieferung bis Freitag. Danke!", "Gern. Danke!", "promise:delivery-date"),
        ("Claro. Le reembolsaremos el importe. Saludos.", "Claro. Saludos.", "promise:refund"),
        ("Bien sûr. Nous vous rembourserons demain. Merci.", "Bien sûr. Merci.", "promise:refund"),
        ("Ok. You are legally entitled to that. Bye.", "Ok. Bye.", "promise:legal-advice"),
        ("Ok. It will cure your back pain. Bye.", "Ok. Bye.", "promise:medical-advice"),
    ];
    for (text, expected, rule) in table {
        let verdict = judge(text);
        assert_eq!(outcome(&verdict), expected, "{text}: {verdict:?}");
        assert!(rules(&verdict).contains(&rule), "{text}: {verdict:?}");
    }
    assert_eq!(outcome(&judge("We guarantee a full refund.")), "BLOCK", "nothing is left");
}

#[test]
fn repeated_instructions_are_a_leak_unless_a_passage_says_the_same() {
    let instructions =
        vec!["You are warm, helpful and to the point, like a good shop assistant in a small town.".to_owned()];
    let leaking = Draft {
        instructions: instructions.clone(),
        ..draft("Sure: you are warm, helpful and to the point, like a good shop assistant!")
    };
    let verdict = judge_with(|_| (), &leaking);
    assert_eq!((outcome(&verdict), rules(&verdict)), ("BLOCK", vec!["leakage:repeated"]));
    let short = Draft { instructions, ..draft("Our team is warm, helpful and to the point.") };
    assert_eq!(outcome(&judge_with(|_| (), &short)), "pass");
    let quoting = "Call the workshop: 0664 123 45 67, or see https://maps.example/alpenrad.";
    let quoted = Draft { instructions: vec![quoting.to_owned()], ..draft(quoting) };
    assert_eq!(outcome(&judge_with(|_| (), &quoted)), "pass");
}

#[test]
fn markdown_becomes_plain_text() {
    for (text, expected) in [
        ("**Shipping** takes *two* days.", "Shipping takes two days."),
        ("# Shipping\n\n* fast\n* cheap\n", "Shipping\n\n- fast\n- cheap"),
        ("Use `code` and __this__ and ~~that~~.", "Use code and this and that."),
        ("> quoted\nnot", "quoted\nnot"),
        ("one\n---\ntwo", "one\n\ntwo"),
    ] {
        assert_eq!(outcome(&judge(text)), expected, "{text}");
    }
    let noted = judge_with(|settings| settings["markdown"] = "note".into(), &draft("**a**"));
    assert_eq!((outcome(&noted), rules(&noted).len()), ("pass", 2));
}

#[test]
fn long_drafts_are_split_or_shortened_at_sentences() {
    let small = |settings: &mut Value| {
        settings["length"] = json!({ "characters-per-message": 100, "messages": 2 });
    };
    let sentence = "Ünsere Lieferung dauert zwei bis vier Tage. ";
    let two = sentence.repeat(4);
    let verdict = judge_with(small, &draft(two.trim()));
    assert_eq!(outcome(&verdict), "pass");
    assert_eq!(verdict.split_hints, [sentence.len() as u32 * 2]);

    let many = sentence.repeat(9);
    let verdict = judge_with(small, &draft(&many));
    assert_eq!(outcome(&verdict), two.trim());
    assert_eq!(rules(&verdict), ["length"]);

    let blocking = |settings: &mut Value| {
        small(settings);
        settings["length"]["action"] = "block".into();
    };
    assert_eq!(outcome(&judge_with(blocking, &draft(&many))), "BLOCK");
}

#[test]
fn a_part_is_never_too_long_and_never_cut_inside_a_grapheme() {
    let limits = settings::Length { characters_per_message: 100, messages: 10, ..settings::Length::default() };
    let family = "👩‍👩‍👧‍👦";
    for text in [family.repeat(60), "a".repeat(1_000), "e\u{301}".repeat(400), "word ".repeat(150), "x\n\n".repeat(200)]
    {
        let mut start = 0;
        for cut in length::split_hints(&limits, &text).into_iter().map(|at| at as usize).chain([text.len()]) {
            assert!(text[start..cut].chars().count() <= 100);
            assert!(!text[cut..].starts_with(['\u{301}', '\u{200d}']), "cut inside a cluster");
            start = cut;
        }
    }
}

#[test]
fn every_check_can_be_switched_off() {
    let off = |settings: &mut Value| {
        for pointer in [
            "/length/action",
            "/links/action",
            "/pii/cards",
            "/pii/ibans",
            "/pii/emails",
            "/pii/phones",
            "/toxicity/action",
            "/promises/action",
            "/leakage/action",
            "/markdown",
        ] {
            *settings.pointer_mut(pointer).unwrap() = "off".into();
        }
    };
    let text =
        "**Idiot** at evil.com, 4111111111111111, we guarantee a full refund, as an AI, a@b.example, +49 30 901820";
    let verdict = judge_with(off, &draft(text));
    assert_eq!((outcome(&verdict), rules(&verdict)), ("pass", vec![]));
}

#[test]
fn every_mistake_in_the_settings_is_listed() {
    let errors = configured(|settings| {
        settings["links"]["allowed-hosts"] = json!(["https://a.example/x", "ok.example", "b c"]);
        settings["toxicity"]["phrases"]["en"] = json!(["(x", "fine"]);
        settings["promises"]["kinds"]["re/fund"] = json!({ "en": ["..."] });
    })
    .unwrap_err();
    let paths: Vec<&str> = errors.iter().map(|error| error.path.as_str()).collect();
    assert_eq!(
        paths,
        ["/links/allowed-hosts/0", "/links/allowed-hosts/2", "/toxicity/phrases/en/0", "/promises/kinds/re~1fund/en/0"]
    );
}

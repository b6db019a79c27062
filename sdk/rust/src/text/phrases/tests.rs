use super::*;

fn set(phrases: &[&str]) -> PhraseSet {
    let mut builder = PhraseSetBuilder::new();
    for phrase in phrases {
        builder.add(phrase).unwrap();
    }
    builder.build()
}

fn found(set: &PhraseSet, text: &str) -> Vec<u32> {
    set.find(&Words::scan(text)).iter().map(|hit| hit.phrase).collect()
}

#[test]
fn phrases_and_what_they_match() {
    let table: [(&str, &[&str], &[&str]); 16] = [
        (
            "talk to a person",
            &["I want to TALK to a person!", "talk  to\na person"][..1],
            &["talk to person", "talk to. A person"],
        ),
        ("refund*", &["refund", "a refunded order", "Refunds?"], &["fund", "prefund"]),
        ("(human|person|agent*)", &["human", "agents please"], &["humane"]),
        (
            "talk to (a|the)? real? person",
            &["talk to person", "talk to a person", "talk to the real person"],
            &["talk to an person"],
        ),
        ("verify _ account", &["verify your account"], &["verify account", "verify all your account"]),
        ("a _? car", &["a car", "a red car"], &["a big red car", "a. Red car"]),
        ("(very|so)? (angry|fed up) now?", &["angry", "so fed up", "very angry now"], &["fed", "up now"]),
        (
            "page ... disabled",
            &["page disabled", "your page will be disabled", "page a b c disabled"],
            &["page a b c d disabled", "page. Disabled"],
        ),
        ("möchte", &["Möchte", "moechte", "mochte", "ich MÖCHTE"], &["machte"]),
        ("straße", &["strasse", "STRAßE"], &["strase"]),
        ("l'avocat", &["l'avocat", "l’Avocat", "L avocat"], &["lavocat"]),
        ("don't", &["dont", "don't", "DON’T"], &["do not"]),
        (
            "complaint",
            &["complant", "compalint", "complaints", "conplaint", "complainnt"],
            &["complete it", "complex", "kcomplaint"],
        ),
        ("help", &["heeeeelp", "HELP"], &["hepl", "helps"]),
        ("👍", &["👍", "ok👍🏿"], &["👎"]),
        ("bot", &["bot"], &["both", "robot", "bottle"]),
    ];
    for (phrase, hits, misses) in table {
        let set = set(&[phrase]);
        for text in hits {
            assert_eq!(found(&set, text), [0], "`{phrase}` should be found in `{text}`");
        }
        for text in misses {
            assert_eq!(found(&set, text), [] as [u32; 0], "`{phrase}` should not be found in `{text}`");
        }
    }
}

#[test]
fn disguises_are_seen_through_and_reported() {
    let set = set(&["bitcoin", "free money", "whatsapp", "paypal"]);
    let table = [
        ("bitcoin", 0, false),
        ("b1tc0in", 0, true),
        ("bit\u{200b}coin", 0, true),
        ("bitсoin", 0, true),
        ("𝐛𝐢𝐭𝐜𝐨𝐢𝐧", 0, false),
        ("f r e e m o n e y", 1, true),
        ("F.R.E.E  M-O-N-E-Y", 1, true),
        ("fr33 m0n3y", 1, true),
        ("wh@tsapp", 2, true),
        ("pa1pal paypa1", 3, true),
    ];
    for (text, phrase, obfuscated) in table {
        let hits = set.find(&Words::scan(text));
        assert!(hits.iter().any(|hit| hit.phrase == phrase && hit.obfuscated == obfuscated), "{text}: {hits:?}");
    }
}

#[test]
fn a_hit_names_its_words() {
    let set = set(&["to a (human|person)", "a"]);
    let hits = set.find(&Words::scan("talk to a human"));
    assert_eq!(
        hits,
        [
            Hit { phrase: 0, first: 1, last: 3, obfuscated: false },
            Hit { phrase: 1, first: 2, last: 2, obfuscated: false }
        ]
    );
}

#[test]
fn mistakes_in_phrases_are_explained() {
    for (phrase, part) in [
        ("", "must begin and end"),
        ("... scam", "must begin and end"),
        ("... scam?", "must begin and end"),
        ("(a|b", "does not close"),
        ("a) b", "without its partner"),
        ("(!|b)", "has no letter"),
        ("(a b|c d|e f|g h) (a b|c d|e f|g h) (a b|c d|e f|g h) (a b|c d|e f|g h)", "more than 64 variants"),
        (&"a ".repeat(30), "more than 24"),
    ] {
        let message = PhraseSetBuilder::new().add(phrase).unwrap_err().to_string();
        assert!(message.contains(part), "{phrase}: {message}");
    }
}

#[test]
fn every_added_phrase_finds_itself() {
    let phrases = [
        "ich will mit einem menschen sprechen",
        "quiero hablar con alguien",
        "je veux parler à quelqu'un",
        "où est mon colis",
    ];
    let set = set(&phrases);
    for (number, phrase) in phrases.iter().enumerate() {
        assert_eq!(found(&set, phrase), [number as u32]);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,200}") {
        let set = set(&["a ... b", "free money", "(x|y w)? z", "möchte*"]);
        let words = Words::scan(&text);
        for hit in set.find(&words) {
            proptest::prop_assert!(hit.first <= hit.last && (hit.last as usize) < words.len());
        }
    }

    #[test]
    fn one_typing_error_is_forgiven(at in 1usize..9, letter in proptest::char::range('a', 'z')) {
        let mut typed = "complaint".to_owned().into_bytes();
        typed[at] = letter as u8;
        let typed = String::from_utf8(typed).unwrap();
        proptest::prop_assert_eq!(found(&set(&["complaint"]), &typed), [0]);
    }
}

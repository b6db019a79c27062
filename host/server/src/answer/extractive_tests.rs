use super::quoting::heading_of;
use super::*;

fn prose(text: &str, score: f32) -> PassageRef {
    PassageRef {
        id: "p".to_owned(),
        text: text.to_owned(),
        score,
        language: Some("en".to_owned()),
        ..PassageRef::default()
    }
}

fn answer(question: &str, passages: Vec<PassageRef>, max_characters: usize) -> DraftOutcome {
    let request = DraftRequest { question: question.to_owned(), passages, max_characters, ..DraftRequest::default() };
    // Without an embedder there is nothing to wait for.
    Extractive::new(0.55, None).answer(&request).now_or_never().unwrap().unwrap()
}

fn text(outcome: DraftOutcome) -> String {
    match outcome {
        DraftOutcome::Drafted(drafted) => drafted.text,
        DraftOutcome::Declined(declined) => panic!("{}", declined.reason),
    }
}

const SHOP: &str = "Our shop is in Graz. We ship to Austria and Germany. Parcels arrive within 3 days. Shipping costs 4.90 EUR. We love cats.";

#[test]
fn a_part_of_a_document_is_not_about_its_sibling() {
    for (title, heading) in [
        ("Versand und Rückgabe: Versand und Rückgabe > Rückgabe", "Rückgabe"),
        ("Versand und Rückgabe > Öffnungszeiten", "Öffnungszeiten"),
        ("Shop > Shipping & pick-up > Pick-up", "Shop: Pick-up"),
        ("Versand und Rückgabe", "Versand und Rückgabe"),
        ("Verleih: Preise", "Verleih: Preise"),
        ("Preise > Preise", "Preise: Preise"),
    ] {
        assert_eq!(heading_of(title), heading, "{title}");
    }
}

#[test]
fn prose_is_quoted_around_the_best_sentence() {
    for (question, expected) in [
        ("Do you ship to Austria?", "We ship to Austria and Germany."),
        ("Where is your shop?", "Our shop is in Graz."),
        (
            "When do parcels arrive and what does shipping cost?",
            "Parcels arrive within 3 days. Shipping costs 4.90 EUR.",
        ),
    ] {
        assert_eq!(text(answer(question, vec![prose(SHOP, 0.8)], 0)), expected, "{question}");
    }
}

#[test]
fn answers_of_a_faq_are_given_whole() {
    let entry =
        PassageRef { question: Some("Do you ship?".to_owned()), ..prose("Yes.\n\nTo Austria. And Germany.", 0.9) };
    assert_eq!(text(answer("do you ship", vec![entry], 0)), "Yes.\n\nTo Austria. And Germany.");
}

fn faq(question: &str, text: &str) -> PassageRef {
    PassageRef { question: Some(question.to_owned()), ..prose(text, 0.9) }
}

#[test]
fn a_yes_or_no_answers_only_its_own_question() {
    let swiss = || faq("Do you ship to Switzerland?", "Yes. A parcel to Switzerland costs 14.90 francs.");
    assert!(matches!(answer("do u ship to switzerland", vec![swiss()], 0), DraftOutcome::Drafted(_)));
    for question in ["do u ship to france", "Do you ship to Switzerland and Norway?", "Do you ship?"] {
        assert!(matches!(answer(question, vec![swiss()], 0), DraftOutcome::Declined(_)), "{question}");
    }
}

#[test]
fn words_scattered_over_a_passage_do_not_make_an_answer() {
    let returns = prose("Put the label on the parcel. Hand it in. Returns from Austria and Germany are free.", 0.9);
    let asked = answer("How much does a parcel to Germany cost?", vec![returns], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
    let table = "| Country | Parcel |\n|---|---|\n| Austria | 4.90 euros |\n| Germany | 6.90 euros |";
    let prices = PassageRef { title: "Shipping: what a parcel costs".to_owned(), ..prose(table, 0.9) };
    let asked = answer("How much does a parcel to Germany cost?", vec![prices], 0);
    assert_eq!(text(asked), "Country: Germany, Parcel: 6.90 euros");
}

#[test]
fn a_passage_about_something_else_is_not_quoted_for_a_word_in_passing() {
    let newsletter = faq("How do I subscribe to the newsletter?", "Enter your address at the bottom of our website.");
    let asked = answer("What is your address?", vec![newsletter], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
    let titled = |title: &str, text: &str| PassageRef { title: title.to_owned(), ..prose(text, 0.9) };
    let job = || titled("Contact > Jobs", "We are looking for a bicycle mechanic for 30 hours a week.");
    let asked = answer("What is the salary of a bicycle mechanic?", vec![job()], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
    // Of two that hold the words, the one whose heading does is about them.
    let pick_up = titled("Shipping > Pick-up", "Your order is ready within two hours during opening hours.");
    let hours = PassageRef { score: 0.85, ..titled("Opening hours > Shop", "Saturday: 9:00 to 13:00.") };
    assert_eq!(text(answer("What are your opening hours?", vec![pick_up, hours], 0)), "Saturday: 9:00 to 13:00.");
}

#[test]
fn a_list_under_the_heading_that_was_asked_for_is_given_whole() {
    let list = "- Monday: 9:00 to 18:00\n- Saturday: 9:00 to 13:00\n- Sunday: closed";
    let hours = || PassageRef { title: "Visit us: Opening hours".to_owned(), ..prose(list, 0.9) };
    let said = text(answer("What are your opening hours?", vec![hours()], 0));
    assert_eq!(said, "Monday: 9:00 to 18:00\nSaturday: 9:00 to 13:00\nSunday: closed");
    assert_eq!(text(answer("What are your opening hours on Saturday?", vec![hours()], 0)), "Saturday: 9:00 to 13:00");
}

#[test]
fn names_of_one_concept_are_the_same_word() {
    for question in ["Do you deliver to Austria?", "do you dispatch to austria"] {
        assert_eq!(text(answer(question, vec![prose(SHOP, 0.8)], 0)), "We ship to Austria and Germany.", "{question}");
    }
    let asked = answer("Do you deliver to France?", vec![prose(SHOP, 0.8)], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
}

#[test]
fn slips_of_the_pen_are_read_as_they_are_meant() {
    for (question, expected) in [
        ("shiping to austira", "We ship to Austria and Germany."),
        ("how much is shippping?", "Shipping costs 4.90 EUR."),
    ] {
        assert_eq!(text(answer(question, vec![prose(SHOP, 0.8)], 0)), expected, "{question}");
    }
    // Another word is no slip, and a word that the knowledge uses is what it is.
    for question in ["Do you offer shopping to Austria?", "Do you ship to Australia?", "Do you ship to the austrai?"] {
        let asked = answer(question, vec![prose(SHOP, 0.8)], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{question}: {asked:?}");
    }
    let slipped = prose("The Shiping is a boat.", 0.8);
    let asked = answer("How much is shiping?", vec![prose(SHOP, 0.8), slipped], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
}

#[test]
fn who_names_a_card_takes_cards() {
    let cards = || prose("We accept Visa, PayPal and cash.", 0.8);
    for question in ["Do you accept credit cards?", "do u accept credit card"] {
        assert_eq!(text(answer(question, vec![cards()], 0)), "We accept Visa, PayPal and cash.", "{question}");
    }
    for question in ["Do you accept Amex?", "Do you accept gift cards?", "Do you accept store credit?"] {
        let asked = answer(question, vec![cards()], 0);
        assert!(matches!(asked, DraftOutcome::Declined(_)), "{question}: {asked:?}");
    }
    // The other way round says nothing: some card may be another.
    let asked = answer("Do you accept Visa?", vec![prose("We accept credit cards.", 0.8)], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
}

fn german(title: &str, text: &str) -> PassageRef {
    let (title, language) = (title.to_owned(), Some("de".to_owned()));
    PassageRef { title, language, ..prose(text, 0.8) }
}

#[test]
fn verbs_in_two_parts_are_one_word() {
    let shop = || {
        let text = "Wir nehmen gebrauchte Räder zurück. Kochkurse bieten wir im Herbst an. Am Sonntag ist der Laden geschlossen. \
                    Wir öffnen um neun Uhr.";
        german("Öffnungszeiten", text)
    };
    for (question, expected) in [
        ("Nehmt ihr gebrauchte Räder zurück?", "Wir nehmen gebrauchte Räder zurück."),
        ("Bieten Sie Kochkurse an?", "Kochkurse bieten wir im Herbst an."),
        ("Wann macht ihr auf?", "Wir öffnen um neun Uhr."),
    ] {
        assert_eq!(text(answer(question, vec![shop()], 0)), expected, "{question}");
    }
    let asked = answer("Bieten Sie Malkurse an?", vec![shop()], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
}

#[test]
fn a_price_of_one_thing_is_half_an_answer() {
    let prices = "Wir liefern nach Österreich und in die Schweiz. Ein Paket nach Österreich kostet 4,90 Euro. In die Schweiz \
                  kostet es 14,90 Franken. Ein Fahrrad kostet nach Österreich 29 Euro und in die Schweiz 79 Franken Versand. \
                  Es kommt fertig montiert.";
    let asked = |question: &str| text(answer(question, vec![german("Versand", prices)], 0));
    assert_eq!(
        asked("was kostet der versand nach österreich"),
        "Ein Paket nach Österreich kostet 4,90 Euro. Ein Fahrrad kostet nach Österreich 29 Euro und in die Schweiz 79 \
         Franken Versand."
    );
    assert_eq!(asked("Was kostet ein Paket nach Österreich?"), "Ein Paket nach Österreich kostet 4,90 Euro.");
}

#[test]
fn a_question_that_follows_up_is_answered_for_what_it_says_itself() {
    let asked = |question: &str| {
        let request = DraftRequest {
            question: question.to_owned(),
            context: Some("Do you ship to Austria?".to_owned()),
            passages: vec![prose(SHOP, 0.8)],
            ..DraftRequest::default()
        };
        Extractive::new(0.55, None).answer(&request).now_or_never().unwrap().unwrap()
    };
    assert_eq!(text(asked("And to Germany?")), "We ship to Austria and Germany.");
    // "It" is what was asked about before, and nothing else.
    let elsewhere = prose("We ship to Germany. Jackets are waterproof.", 0.8);
    let request = DraftRequest {
        question: "Is it waterproof?".to_owned(),
        context: Some("How much is the Flaneur bicycle?".to_owned()),
        passages: vec![elsewhere],
        ..DraftRequest::default()
    };
    let about_it = Extractive::new(0.55, None).answer(&request).now_or_never().unwrap().unwrap();
    assert!(matches!(about_it, DraftOutcome::Declined(_)), "{about_it:?}");
    assert!(matches!(asked("And to France?"), DraftOutcome::Declined(_)));
}

#[test]
fn a_passage_of_another_language_is_not_quoted_for_its_score_alone() {
    let asked = answer("¿Venden ustedes coches eléctricos en su tienda?", vec![prose(SHOP, 0.95)], 0);
    assert!(matches!(asked, DraftOutcome::Declined(_)), "{asked:?}");
}

#[test]
fn lists_keep_their_lines_and_lose_their_marks() {
    let hours = prose("Opening hours on Saturday:\n\n- Saturday: 9:00 to 13:00\n- Sunday: closed", 0.9);
    let said = text(answer("What are your opening hours on Saturday?", vec![hours], 0));
    assert!(said.contains("\nSaturday: 9:00 to 13:00"), "{said:?}");
}

#[test]
fn every_sentence_is_the_passages_own_and_cites_it() {
    let DraftOutcome::Drafted(drafted) = answer("shipping costs", vec![prose(SHOP, 0.8)], 0) else {
        panic!("declined")
    };
    assert!(drafted.sentences.iter().all(|s| SHOP.contains(&s.text) && s.passage_ids == ["p"] && s.support == 1.0));
    assert_eq!(drafted.evidence.sentences, drafted.evidence.supported);
    assert!((drafted.evidence.confidence - 0.9).abs() < 1e-6);
}

#[test]
fn markdown_becomes_plain_text() {
    let table = "| Tea | 100 g |\n|---|---|\n| Sencha | 12.50 EUR |\n| Assam | 9 EUR |";
    let table = PassageRef { title: "Prices".to_owned(), ..prose(table, 0.9) };
    assert_eq!(text(answer("price of sencha", vec![table], 0)), "Tea: Sencha, 100 g: 12.50 EUR");
    let marked = prose("**Returns** go to [our form](https://tea.example/r), see `help`.", 0.9);
    assert_eq!(
        text(answer("returns form", vec![marked], 0)),
        "Returns go to our form (https://tea.example/r), see help."
    );
}

#[test]
fn it_declines_below_the_score_and_beyond_the_length() {
    for outcome in [
        answer("Do you sell cars?", vec![prose(SHOP, 0.54)], 0),
        answer("Do you sell cars?", vec![], 0),
        answer("Do you ship?", vec![prose(SHOP, 0.9)], 5),
    ] {
        assert!(matches!(outcome, DraftOutcome::Declined(_)), "{outcome:?}");
    }
    assert!(matches!(answer("Do you ship to Austria?", vec![prose(SHOP, 0.55)], 0), DraftOutcome::Drafted(_)));
    assert_eq!(text(answer("Do you ship to Austria?", vec![prose(SHOP, 0.9)], 31)), "We ship to Austria and Germany.");
}

//! Words that say together, or apart, what another text says otherwise: "Kinderräder" is "Räder" for "Kinder", "nehmt ... zurück" is
//! "zurücknehmen", and who accepts Visa takes credit cards.

use unicode_segmentation::UnicodeSegmentation;

use crate::knowledge::terms::{Stems, fold, is_name, words};

/// The shortest part of a word.
const PART_MIN: usize = 3;

/// First parts of verbs that stand apart at a clause's end, folded.
const PARTICLES: &[(&str, &[&str])] = &[
    ("de", &["ab", "an", "auf", "aus", "ein", "her", "hin", "mit", "nach", "um", "vor", "weg", "zu", "zuruck"]),
    ("nl", &["aan", "af", "in", "mee", "op", "terug", "uit"]),
];

/// What is one of a kind by its name, the same in every language: who names one, has the kind. Never the other way round.
const KINDS: &[(&[&[&str]], &[&str])] = &[(
    &[
        &["credit", "card"],
        &["credit", "cards"],
        &["kreditkarte"],
        &["kreditkarten"],
        &["tarjeta", "credito"],
        &["tarjetas", "credito"],
        &["carte", "credit"],
        &["carte", "bancaire"],
        &["cartes", "bancaires"],
        &["cartes", "credit"],
        &["carta", "credito"],
        &["carte", "credito"],
        &["cartao", "credito"],
        &["cartoes", "credito"],
        &["creditcard"],
        &["creditcards"],
    ],
    &["visa", "mastercard", "amex"],
)];

/// Names of what a word of a question stands for with its neighbours; empty for most words.
pub(super) fn names_of_kind(word: &str, question: &[String]) -> &'static [&'static str] {
    let says =
        |words: &[&str]| words.contains(&word) && words.iter().all(|one| question.iter().any(|said| said == one));
    let kind = KINDS.iter().find(|(sayings, _)| sayings.iter().any(|words| says(words)));
    kind.map_or(&[], |(_, names)| names)
}

/// "Kinderräder" is "Kinder" and "Räder": a word of German or Dutch that is two known ones. Others stay as they are.
pub(super) fn parted((stem, word): (String, String), stems: &Stems) -> Vec<(String, String)> {
    if !matches!(stems.language(), Some("de" | "nl")) || stems.concept(&stem).is_some() || !word.is_ascii() {
        return vec![(stem, word)];
    }
    let known = |part: &str| {
        let stem = stems.stem(part);
        stems.concept(&stem).is_some_and(|concept| !is_name(concept)).then(|| (stem, part.to_owned()))
    };
    let cuts = PART_MIN..word.len().saturating_sub(PART_MIN - 1);
    let parts = cuts.into_iter().find_map(|at| {
        let (head, tail) = word.split_at_checked(at)?;
        let head = known(head).or_else(|| known(head.strip_suffix('s')?))?;
        Some(vec![head, known(tail)?])
    });
    parts.unwrap_or_else(|| vec![(stem, word)])
}

/// The verbs of a text whose first part stands apart, put together: every word of a clause with the particle that ends it, of which
/// one is the verb and the others are no words.
pub(super) fn rejoined<'a>(text: &'a str, stems: &Stems) -> impl Iterator<Item = String> + use<'a> {
    let particles = particles(stems);
    let clauses = text.split(['.', ',', ';', ':', '!', '?', '\n', '|']).filter(move |_| !particles.is_empty());
    clauses.flat_map(move |clause| {
        let mut said = words(clause);
        let particle = said.pop().filter(|last| particles.contains(&last.as_str()));
        let verbs = if particle.is_some() { said } else { Vec::new() };
        verbs.into_iter().map(move |verb| format!("{}{verb}", particle.as_deref().unwrap_or_default()))
    })
}

/// A question with its verbs in one word: "macht ihr sonntags auf" is "aufmacht ihr sonntags". Only what `is_known` is taken for a
/// verb; a question without one stays as it is.
pub(super) fn with_whole_verbs(question: &str, stems: &Stems, is_known: impl Fn(&str) -> bool) -> String {
    let particles = particles(stems);
    if particles.is_empty() {
        return question.to_owned();
    }
    let of_clause = |clause: &str| {
        let written: Vec<(usize, &str)> = clause.unicode_word_indices().collect();
        let (&(end, particle), verbs) = written.split_last()?;
        let first = Some(fold(particle)).filter(|last| particles.contains(&last.as_str()))?;
        verbs.iter().find_map(|(at, verb)| {
            let whole = format!("{first}{}", fold(verb));
            let (head, middle) = (clause.get(..*at)?, clause.get(at + verb.len()..end)?);
            let tail = clause.get(end + particle.len()..)?;
            is_known(&whole).then(|| format!("{head}{whole}{}{tail}", middle.trim_end()))
        })
    };
    let clauses = question.split_inclusive(['.', ',', ';', ':', '!', '?', '\n']);
    clauses.map(|clause| of_clause(clause).unwrap_or_else(|| clause.to_owned())).collect()
}

fn particles(stems: &Stems) -> &'static [&'static str] {
    PARTICLES.iter().find(|(code, _)| Some(*code) == stems.language()).map_or(&[], |(_, particles)| particles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbs_are_put_together() {
        let german = Stems::new(Some("de"));
        let known = ["aufmacht", "zurucknehmt", "anbieten"];
        let is_known = |word: &str| known.contains(&word);
        for (question, expected) in [
            ("Wann macht ihr sonntags auf?", "Wann aufmacht ihr sonntags?"),
            ("Nehmt ihr gebrauchte Ware zurück", "zurucknehmt ihr gebrauchte Ware"),
            ("Hallo, bieten Sie Kochkurse an? Danke", "Hallo, anbieten Sie Kochkurse? Danke"),
            ("Worauf kommt es an?", "Worauf kommt es an?"),
            ("Macht ihr auf Anfrage Kurse?", "Macht ihr auf Anfrage Kurse?"),
        ] {
            assert_eq!(with_whole_verbs(question, &german, is_known), expected, "{question}");
        }
        let english = Stems::new(Some("en"));
        assert_eq!(with_whole_verbs("What time do you come in?", &english, |_| true), "What time do you come in?");
        let said: Vec<String> = rejoined("Wir holen das Rad ab, und bringen es zurück.", &german).collect();
        assert!(said.contains(&"abholen".to_owned()) && said.contains(&"zuruckbringen".to_owned()), "{said:?}");
        assert_eq!(rejoined("We pick it up in", &english).count(), 0);
    }

    #[test]
    fn a_kind_is_told_by_all_its_words() {
        let of = |word: &str, question: &str| !names_of_kind(word, &words(question)).is_empty();
        assert!(of("credit", "Can I pay by credit card?") && of("card", "Can I pay by credit card?"));
        assert!(of("kreditkarte", "Kann ich mit Kreditkarte zahlen?"));
        assert!(!of("credit", "Do you give store credit?") && !of("pay", "Can I pay by credit card?"));
        assert!(!of("card", "Do you sell gift cards?"));
    }
}

//! From hits to scores.

use frontdesk_policy_sdk::text::language::{self, same};
use frontdesk_policy_sdk::text::{Hit, links};
use frontdesk_policy_sdk::types::Turn;

use crate::rules::{Role, Rules};
use crate::scan::Scan;
use crate::settings::Negation;

/// How far before a phrase a negation still belongs to it.
const NEGATION_REACH_WORDS: u32 = 6;
/// A detected language counts against rules of other languages from this length on: short texts are often mistaken.
const WORDS_FOR_LANGUAGE: usize = 4;

/// What the rules say about a turn.
#[derive(Debug)]
pub(crate) struct Scores {
    /// `Π(1 - weight)` for each label.
    doubt: Vec<f32>,
    /// Words that no phrase of a label that counts alone covers.
    rest: usize,
    spare_words: usize,
}

impl Scores {
    pub(crate) fn of(rules: &Rules, turn: &Turn, scan: &Scan) -> Self {
        let hits = rules.phrases.find(&scan.words);
        let mut scores =
            Self { doubt: vec![1.0; rules.labels.len()], rest: scan.words.len(), spare_words: rules.spare_words };
        let judge = Judge::new(rules, turn, scan, &hits);
        let mut covered = vec![false; scan.words.len()];
        let mut signs: Vec<Sign> = Vec::new();
        for hit in &hits {
            let Role::Sign(rule) = rules.roles[hit.phrase as usize] else { continue };
            let Some(weight) = judge.weight(hit, rule) else { continue };
            let label = rules.rules[rule as usize].label;
            if rules.labels[label as usize].alone {
                covered[hit.first as usize..=hit.last as usize].fill(true);
            }
            signs.push(Sign { label, weight, hit: *hit });
        }
        scores.add_signs(signs);
        scores.rest = covered.iter().filter(|covered| !**covered).count();
        if scan.words.questions > 0 {
            scores.rest += 1 + scores.spare_words;
        }
        scores.add_links(rules, scan);
        scores
    }

    /// The score of label `index`, 0 to 1.
    pub(crate) fn of_label(&self, index: usize) -> f32 {
        1.0 - self.doubt[index]
    }

    /// Whether there is nothing in the turn but phrases of labels that count alone.
    pub(crate) fn alone(&self) -> bool {
        self.rest <= self.spare_words
    }

    /// The heaviest signs first; a sign that shares words or its phrase with a heavier one of the label says nothing new
    /// (`bitcoin` stands in the lists of several languages).
    fn add_signs(&mut self, mut signs: Vec<Sign>) {
        signs.sort_by(|left, right| right.weight.total_cmp(&left.weight));
        let mut counted: Vec<&Sign> = Vec::new();
        for sign in &signs {
            let known = counted.iter().any(|other| {
                let apart = other.hit.last < sign.hit.first || sign.hit.last < other.hit.first;
                other.label == sign.label && (!apart || other.hit.phrase == sign.hit.phrase)
            });
            if !known {
                self.doubt[sign.label as usize] *= 1.0 - sign.weight;
                counted.push(sign);
            }
        }
    }

    fn add_links(&mut self, rules: &Rules, scan: &Scan) {
        let Some(label) = rules.links.label else { return };
        let found = links::find(&scan.text);
        let web = || found.iter().filter(|link| link.kind != links::Kind::Email);
        let suspicious = web().any(|link| {
            let listed = |host: &String| link.host == *host || link.host.ends_with(&format!(".{host}"));
            link.trick.is_some()
                || link.kind == links::Kind::Dangerous
                || rules.links.suspicious_hosts.iter().any(listed)
        });
        if suspicious {
            self.doubt[label] *= 1.0 - rules.links.suspicious_weight;
        } else if web().next().is_some() {
            self.doubt[label] *= 1.0 - rules.links.any_weight;
        }
    }
}

/// A hit that counts.
struct Sign {
    label: u16,
    weight: f32,
    hit: Hit,
}

struct Judge<'a> {
    rules: &'a Rules,
    scan: &'a Scan,
    /// What is taken back, with the sentence; sorted.
    taken_back: Vec<(TakenBack, u16)>,
    /// Negations that hold: the last word and the language; by the word.
    negations: Vec<(u32, u8)>,
    /// Number of the detected language; 0 when it is not known or not to be believed.
    language: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum TakenBack {
    Rule(u16),
    NegationsOf(u8),
}

impl<'a> Judge<'a> {
    fn new(rules: &'a Rules, turn: &Turn, scan: &'a Scan, hits: &[Hit]) -> Self {
        let sentence = |hit: &Hit| scan.words.items()[hit.first as usize].sentence;
        let mut taken_back: Vec<(TakenBack, u16)> = (hits.iter())
            .filter_map(|hit| match rules.roles[hit.phrase as usize] {
                Role::Unless(rule) => Some((TakenBack::Rule(rule), sentence(hit))),
                Role::NotNegation(language) => Some((TakenBack::NegationsOf(language), sentence(hit))),
                Role::Sign(_) | Role::Negation(_) => None,
            })
            .collect();
        taken_back.sort_unstable();
        let negations = (hits.iter())
            .filter_map(|hit| match rules.roles[hit.phrase as usize] {
                Role::Negation(language) => Some((hit, language)),
                _ => None,
            })
            .filter(|(hit, of)| taken_back.binary_search(&(TakenBack::NegationsOf(*of), sentence(hit))).is_err())
            .map(|(hit, language)| (hit.last, language))
            .collect();
        let mut judge = Self { rules, scan, taken_back, negations, language: language_number(rules, turn, scan) };
        judge.negations.sort_unstable();
        judge
    }

    /// What the hit is worth; `None` when it does not count.
    fn weight(&self, hit: &Hit, rule_index: u16) -> Option<f32> {
        let rule = &self.rules.rules[rule_index as usize];
        let sentence = self.scan.words.items()[hit.first as usize].sentence;
        let taken_back = || self.taken_back.binary_search(&(TakenBack::Rule(rule_index), sentence)).is_ok();
        if rule.obfuscated_only && !hit.obfuscated || taken_back() {
            return None;
        }
        let negated = || self.is_negated(hit, rule.language);
        match rule.negation {
            Negation::Cancels if negated() => return None,
            Negation::Required if !negated() => return None,
            _ => {}
        }
        let foreign = rule.language != 0 && self.language != 0 && rule.language != self.language;
        Some(if foreign { rule.weight * self.rules.other_language_factor } else { rule.weight })
    }

    /// Whether a negation of the language (0: of any) stands before the hit, in reach and in the same clause.
    fn is_negated(&self, hit: &Hit, language: u8) -> bool {
        let items = self.scan.words.items();
        let clause = items[hit.first as usize].clause;
        let before = self.negations.partition_point(|(last, _)| *last < hit.first);
        (self.negations[..before].iter().rev())
            .take_while(|(last, _)| hit.first - last <= NEGATION_REACH_WORDS)
            .any(|(last, of)| (language == 0 || *of == language) && items[*last as usize].clause == clause)
    }
}

fn language_number(rules: &Rules, turn: &Turn, scan: &Scan) -> u8 {
    let Some(detected) = language::detected(turn).filter(|_| scan.words.len() >= WORDS_FOR_LANGUAGE) else { return 0 };
    let number = rules.languages.iter().position(|language| same(language, detected)).map_or(0, |index| index + 1);
    number as u8
}

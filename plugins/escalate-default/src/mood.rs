//! Is the customer angry? Words, shouting and exclamation marks add up; one of them alone is not enough unless it is a
//! strong word.
//!
//! | sign                                                        | counts      |
//! | ----------------------------------------------------------- | ----------- |
//! | a phrase of the lexicon                                     | 0.6 each    |
//! | at least three words of two letters or more in capitals, and half of the words | 0.5 |
//! | three exclamation marks                                     | 0.4         |
//! | the same with a phrase or capitals, five marks or more      | 0.2 more    |

use std::collections::BTreeMap;

use frontdesk_policy_sdk::settings::{Errors, push_segment};
use frontdesk_policy_sdk::text::{PhraseSet, PhraseSetBuilder, Words};

use crate::settings::Anger;

#[derive(Debug, Default)]
pub(crate) struct Lexicon(PhraseSet);

impl Lexicon {
    pub(crate) fn build(lists: &BTreeMap<String, Vec<String>>, errors: &mut Errors) -> Self {
        let mut builder = PhraseSetBuilder::new();
        for (language, phrases) in lists {
            for (index, phrase) in phrases.iter().enumerate() {
                if let Err(error) = builder.add(phrase) {
                    let mut path = "/anger/phrases".to_owned();
                    push_segment(&mut path, language);
                    errors.push(format!("{path}/{index}"), error.to_string());
                }
            }
        }
        Self(builder.build())
    }
}

pub(crate) fn is_angry(settings: &Anger, lexicon: &Lexicon, words: &Words) -> bool {
    let mut known: Vec<(u32, u32)> = Vec::new();
    for hit in lexicon.0.find(words) {
        // Two phrases about the same words are one sign.
        if !known.iter().any(|(first, last)| hit.first <= *last && *first <= hit.last) {
            known.push((hit.first, hit.last));
        }
    }
    let shouted = words.items().iter().filter(|word| word.shouted).count();
    let shouting = shouted >= 3 && shouted * 2 >= words.len();
    let mut score = 0.6 * known.len() as f32;
    score += if shouting { 0.5 } else { 0.0 };
    score += if words.exclamations >= 3 { 0.4 } else { 0.0 };
    score += if words.exclamations >= 5 && (shouting || !known.is_empty()) { 0.2 } else { 0.0 };
    // 0.6 + 0.4 is a little less than 1 in binary.
    score + 1e-4 >= settings.threshold
}

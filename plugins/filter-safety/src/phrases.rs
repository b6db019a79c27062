//! Lists of phrases: toxic words, promises, and talk about being a model. One set, one pass.

use std::collections::BTreeMap;

use frontdesk_policy_sdk::settings::{Errors, push_segment};
use frontdesk_policy_sdk::text::{PhraseSet, PhraseSetBuilder};

use crate::Review;
use crate::settings::{Action, Settings};

/// What a phrase is there for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Role {
    Toxic,
    /// The promise's name.
    Promise(String),
    NoPromise,
    Leak,
}

#[derive(Debug, Default)]
pub(crate) struct Phrases {
    set: PhraseSet,
    roles: Vec<Role>,
}

impl Phrases {
    /// Takes the lists out of the settings: they are not needed twice in memory.
    pub(crate) fn build(settings: &mut Settings, errors: &mut Errors) -> Self {
        let mut builder = Builder { set: PhraseSetBuilder::new(), roles: Vec::new(), errors };
        builder.add(&std::mem::take(&mut settings.toxicity.phrases), "/toxicity/phrases", &Role::Toxic);
        for (kind, lists) in std::mem::take(&mut settings.promises.kinds) {
            let mut path = "/promises/kinds".to_owned();
            push_segment(&mut path, &kind);
            builder.add(&lists, &path, &Role::Promise(kind));
        }
        builder.add(&std::mem::take(&mut settings.promises.unless), "/promises/unless", &Role::NoPromise);
        builder.add(&std::mem::take(&mut settings.leakage.phrases), "/leakage/phrases", &Role::Leak);
        Self { set: builder.set.build(), roles: builder.roles }
    }

    pub(crate) fn review(&self, settings: &Settings, review: &mut Review) {
        let hits = self.set.find(&review.words);
        let sentence = |review: &Review, word: u32| review.words.items()[word as usize].sentence;
        for hit in &hits {
            let (action, rule, detail) = match &self.roles[hit.phrase as usize] {
                Role::Toxic => {
                    (settings.toxicity.action, "toxicity".to_owned(), "The draft contains an offensive word.")
                }
                Role::Promise(kind) => {
                    let here = sentence(review, hit.first);
                    let no_promise = hits.iter().any(|other| {
                        self.roles[other.phrase as usize] == Role::NoPromise && sentence(review, other.first) == here
                    });
                    if no_promise {
                        continue;
                    }
                    let detail = "The draft promises something that only a person may promise.";
                    (settings.promises.action, format!("promise:{kind}"), detail)
                }
                Role::Leak => {
                    let detail = "The draft talks about its instructions or about being a model.";
                    (settings.leakage.action, "leakage:phrase".to_owned(), detail)
                }
                Role::NoPromise => continue,
            };
            if action == Action::Off {
                continue;
            }
            let place = if action == Action::Rewrite {
                review.sentence_around(hit.first as usize)
            } else {
                let items = review.words.items();
                (items[hit.first as usize].start as usize, items[hit.last as usize].end as usize)
            };
            review.found(action, &rule, detail, place, "");
        }
    }
}

struct Builder<'a> {
    set: PhraseSetBuilder,
    roles: Vec<Role>,
    errors: &'a mut Errors,
}

impl Builder<'_> {
    fn add(&mut self, lists: &BTreeMap<String, Vec<String>>, path: &str, role: &Role) {
        for (language, phrases) in lists {
            for (index, phrase) in phrases.iter().enumerate() {
                match self.set.add(phrase) {
                    Ok(_) => self.roles.push(role.clone()),
                    Err(error) => {
                        let mut path = path.to_owned();
                        push_segment(&mut path, language);
                        self.errors.push(format!("{path}/{index}"), error.to_string());
                    }
                }
            }
        }
    }
}

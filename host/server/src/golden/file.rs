//! The form of a file of golden questions (TOML):
//!
//! ```toml
//! version = 1
//!
//! [[golden]]
//! question = "Do you ship to Austria?"
//! route = "answer"                  # answer, ask-back, person, ignore, spam; no-answer: anything but answer
//! cites = ["shipping.md"]           # each must be among the documents that the answer cites
//! must = ["4.90|4,90"]              # each must be in what is said; | separates alternatives; case and accents do not matter
//! must_not = ["France"]
//! language = "en"                   # of what is said
//! then = [{ question = "And to Germany?", route = "answer", must = ["6.90"] }]
//! ```

use serde::{Deserialize, Serialize};

/// Questions in a file, follow-ups included.
pub const QUESTIONS_MAX: usize = 2_000;
const FOLLOW_UPS_MAX: usize = 10;
const TEXT_CHARACTERS_MAX: usize = 2_000;
const LIST_MAX: usize = 20;
const VERSION: u32 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GoldenFile {
    pub version: u32,
    pub golden: Vec<Golden>,
}

/// One question, or one of those that follow it in the same conversation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// What reports call it; without one, the question.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub question: String,
    pub route: ExpectedRoute,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cites: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub must_not: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub then: Vec<Golden>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpectedRoute {
    /// The machine answers.
    #[default]
    Answer,
    /// It asks back.
    AskBack,
    /// A person gets it.
    Person,
    Ignore,
    Spam,
    /// Anything but an answer: for what the knowledge does not hold.
    NoAnswer,
}

impl ExpectedRoute {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Answer => "answer",
            Self::AskBack => "ask-back",
            Self::Person => "person",
            Self::Ignore => "ignore",
            Self::Spam => "spam",
            Self::NoAnswer => "no-answer",
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum GoldenFileError {
    #[error("the goldens are not what this version reads: {reason}")]
    Form { reason: String },
    #[error("the goldens have version {found}, expected {VERSION}")]
    Version { found: u32 },
    #[error("golden {number} ({name}): {problem}")]
    Golden { number: usize, name: String, problem: String },
    #[error("there are {found} questions, expected 1 to {QUESTIONS_MAX}")]
    Count { found: usize },
    #[error("golden.file {path} cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
}

impl GoldenFile {
    /// Reads and checks a file's text.
    pub fn parse(text: &str) -> Result<Self, GoldenFileError> {
        let file: Self = toml::from_str(text).map_err(|error| GoldenFileError::Form { reason: error.to_string() })?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> Result<(), GoldenFileError> {
        if self.version != VERSION {
            return Err(GoldenFileError::Version { found: self.version });
        }
        let found = self.golden.iter().map(|golden| 1 + golden.then.len()).sum();
        if !(1..=QUESTIONS_MAX).contains(&found) {
            return Err(GoldenFileError::Count { found });
        }
        for (at, golden) in self.golden.iter().enumerate() {
            let wrong = |golden: &Golden, problem: String| GoldenFileError::Golden {
                number: at + 1,
                name: golden.title().chars().take(80).collect(),
                problem,
            };
            if golden.then.len() > FOLLOW_UPS_MAX {
                return Err(wrong(golden, format!("it has more than {FOLLOW_UPS_MAX} follow-ups")));
            }
            for one in std::iter::once(golden).chain(&golden.then) {
                one.check().map_err(|problem| wrong(one, problem))?;
            }
            if let Some(nested) = golden.then.iter().find(|next| !next.then.is_empty()) {
                return Err(wrong(nested, "a follow-up has follow-ups; put them in one list".to_owned()));
            }
        }
        Ok(())
    }
}

impl Golden {
    pub fn title(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.question)
    }

    fn check(&self) -> Result<(), String> {
        let texts = self.cites.iter().chain(&self.must).chain(&self.must_not).chain([&self.question]);
        for text in texts {
            if text.trim().is_empty() || text.chars().count() > TEXT_CHARACTERS_MAX {
                return Err(format!("a text is empty or longer than {TEXT_CHARACTERS_MAX} characters"));
            }
        }
        if [&self.cites, &self.must, &self.must_not].iter().any(|list| list.len() > LIST_MAX) {
            return Err(format!("a list has more than {LIST_MAX} entries"));
        }
        match self.language.as_deref() {
            Some(code) if !crate::knowledge::known_languages().any(|known| known == code) => {
                Err(format!("language {code:?} is not known, expected an ISO 639-1 code such as \"en\""))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_and_what_is_wrong_is_named() {
        let text = "version = 1\n[[golden]]\nquestion = \"Do you ship?\"\nroute = \"answer\"\nmust = [\"4.90\"]\n\
                    then = [{ question = \"And to Japan?\", route = \"no-answer\" }]\n";
        let file = GoldenFile::parse(text).unwrap();
        assert_eq!(file.golden[0].then[0].route, ExpectedRoute::NoAnswer);
        let wrong = |text: &str| GoldenFile::parse(text).unwrap_err().to_string();
        assert!(wrong("version = 2\ngolden = []").contains("version 2"));
        assert!(wrong("version = 1\ngolden = []").contains("0 questions"));
        assert!(wrong(&text.replace("must", "mast")).contains("mast"));
        assert!(wrong(&text.replace("4.90", "")).contains("golden 1 (Do you ship?)"));
        assert!(wrong(&format!("{text}language = \"klingon\"")).contains("klingon"));
    }
}

//! Personal data in documents: found by rules, replaced before anything is cut, embedded, stored or quoted.
//!
//! # What is found
//! Payment cards (Luhn, and an issuer's prefix), bank accounts (IBAN, ISO 13616: length of the country and mod 97),
//! e-mail addresses, telephone numbers (E.164, and national forms that are written like one or introduced as one), and
//! national identity numbers of many countries ([`ids`]), by their check digits where the country has some. Rules of our
//! own rather than a library of detectors: those that were tried missed international telephone numbers, took parts of order
//! numbers, and check no digits outside of a few countries.
//!
//! # What replaces it
//! A placeholder such as `[phone #1]`, numbered within the document: the same original is the same placeholder, so a text
//! stays readable ("call A, not B"), and an unchanged document stays unchanged. The originals travel in
//! [`Originals`] to where they are sealed; nothing else holds them.
//!
//! # What people said
//! Words of a conversation that are kept beyond it lose every number of many digits besides
//! ([`RedactionSettings::of_conversations`]): who wrote with which order is nobody's business. Prices, dates and times stay.
//!
//! # What stays
//! Ways to reach the *Page itself* are what customers ask for. Cards, accounts and identity numbers are always replaced;
//! an address or telephone number stays when one of these holds:
//! - it is listed in `redaction.public_contacts`, or in `public_contacts` of the document's Page: an address, a number in
//!   any notation, or a whole domain as `@shop.example`;
//! - the document has a label of `redaction.public_labels` (by default `public-contact`);
//! - `redaction.contacts` is `business` (the default) and it is a role's address (`service@`, `info@`, `kontakt@` …) or a
//!   free-of-charge number, or its line, question or heading speaks of how to reach the business ("call us",
//!   "customer service", "Kontakt", "atención al cliente" …). With `strict` only what is listed or labelled stays.

mod find;
mod ids;
mod public;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::KnowledgeError;
use find::Found;

/// Kinds of personal data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Card,
    Iban,
    NationalId,
    Email,
    Phone,
    /// Any other number of many digits: an order's, a customer's. Not looked for in documents unless `redaction.kinds` says so.
    Number,
}

impl Kind {
    /// All of them, in the order in which they are looked for.
    const ALL: [Self; 6] = [Self::Card, Self::Iban, Self::NationalId, Self::Email, Self::Phone, Self::Number];

    /// Its word in a placeholder.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Card => "card",
            Self::Iban => "account",
            Self::NationalId => "id number",
            Self::Email => "e-mail",
            Self::Phone => "phone",
            Self::Number => "number",
        }
    }

    /// Whether it may be a way to reach the Page.
    fn is_contact(self) -> bool {
        matches!(self, Self::Email | Self::Phone)
    }
}

/// Which addresses and numbers are taken for the Page's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Contacts {
    Business,
    Strict,
}

/// What is replaced in documents, and what stays.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct RedactionSettings {
    pub enabled: bool,
    pub kinds: Vec<Kind>,
    /// Regions (ISO 3166) whose identity numbers are looked for; empty: all that are known.
    pub regions: Vec<String>,
    pub contacts: Contacts,
    pub public_contacts: Vec<String>,
    pub public_labels: Vec<String>,
}

impl Default for RedactionSettings {
    fn default() -> Self {
        Self {
            enabled: true,
            kinds: vec![Kind::Card, Kind::Iban, Kind::NationalId, Kind::Email, Kind::Phone],
            regions: Vec::new(),
            contacts: Contacts::Business,
            public_contacts: Vec::new(),
            public_labels: vec!["public-contact".to_owned()],
        }
    }
}

impl RedactionSettings {
    /// What is taken out of what people said, before it is kept beyond their conversation: everything that may lead to somebody,
    /// but for the Page's own contacts where they are listed.
    #[must_use]
    pub fn of_conversations(&self) -> Self {
        Self { enabled: true, kinds: Kind::ALL.to_vec(), contacts: Contacts::Strict, ..self.clone() }
    }

    /// Refuses regions that no rule knows.
    pub(super) fn check(&self) -> Result<(), KnowledgeError> {
        match self.regions.iter().find(|region| !ids::regions().any(|known| known == region.as_str())) {
            None => Ok(()),
            Some(region) => Err(KnowledgeError::Settings {
                field: "redaction.regions",
                found: region.clone(),
                expected: "codes such as AT, DE, US; `frontdesk settings` lists them",
            }),
        }
    }
}

/// Placeholder → original. Ordered, so that what is sealed is the same for the same document.
pub type Originals = BTreeMap<String, Original>;

/// What a placeholder stands for.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Original {
    pub kind: Kind,
    pub text: String,
}

impl std::fmt::Debug for Original {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Original({:?}, …)", self.kind)
    }
}

/// The rules for one document, and what they have replaced so far.
#[derive(Debug)]
pub struct Redaction<'a> {
    settings: &'a RedactionSettings,
    /// Of the document's Page.
    page_contacts: &'a [String],
    /// The document carries a label under which contacts are public.
    is_public: bool,
    originals: Originals,
    counts: BTreeMap<Kind, u32>,
}

impl<'a> Redaction<'a> {
    /// For a document with these labels, of a Page with these public contacts.
    #[must_use]
    pub fn new(settings: &'a RedactionSettings, page_contacts: &'a [String], labels: &[String]) -> Self {
        let is_public = labels.iter().any(|label| settings.public_labels.contains(label));
        Self { settings, page_contacts, is_public, originals: Originals::new(), counts: BTreeMap::new() }
    }

    /// A text whose lines may be Markdown headings; each line is read in the light of the heading above it.
    pub fn text(&mut self, text: &str) -> String {
        if !self.settings.enabled {
            return text.to_owned();
        }
        let mut redacted = String::with_capacity(text.len());
        let mut heading = String::new();
        let mut paragraph_is_public = false;
        for line in text.split_inclusive('\n') {
            let trimmed = line.trim();
            if trimmed.is_empty() {
                paragraph_is_public = false;
            } else if trimmed.starts_with('#') {
                trimmed.clone_into(&mut heading);
            }
            // An address on the line after "Write to us:" belongs to it.
            paragraph_is_public |= public::speaks_of_the_business(trimmed);
            let public = paragraph_is_public || public::heads_contacts(&heading);
            redacted.push_str(&self.line(line, public));
        }
        redacted
    }

    /// One text in the light of another, as an answer in that of its question.
    pub fn text_beside(&mut self, text: &str, beside: &str) -> String {
        if !self.settings.enabled {
            return text.to_owned();
        }
        let public = public::speaks_of_the_business(beside)
            || public::heads_contacts(beside)
            || public::speaks_of_the_business(text);
        self.line(text, public)
    }

    /// What was replaced.
    #[must_use]
    pub fn into_originals(self) -> Originals {
        self.originals
    }

    fn line(&mut self, line: &str, public: bool) -> String {
        let found = find::find(line, self.settings);
        if found.is_empty() {
            return line.to_owned();
        }
        let mut redacted = String::with_capacity(line.len());
        let mut done = 0;
        for Found { kind, start, end } in found {
            let Some(original) = line.get(start..end) else { continue };
            if kind.is_contact() && self.stays(kind, original, public) {
                continue;
            }
            redacted.push_str(line.get(done..start).unwrap_or_default());
            redacted.push_str(&self.placeholder(kind, original));
            done = end;
        }
        redacted.push_str(line.get(done..).unwrap_or_default());
        redacted
    }

    fn stays(&self, kind: Kind, original: &str, public: bool) -> bool {
        let listed = self.settings.public_contacts.iter().chain(self.page_contacts);
        if self.is_public || public::is_listed(kind, original, listed) {
            return true;
        }
        self.settings.contacts == Contacts::Business && (public || public::is_a_roles(kind, original))
    }

    fn placeholder(&mut self, kind: Kind, original: &str) -> String {
        let same = |known: &Original| known.kind == kind && known.text == original;
        if let Some((placeholder, _)) = self.originals.iter().find(|(_, known)| same(known)) {
            return placeholder.clone();
        }
        let count = self.counts.entry(kind).or_default();
        *count += 1;
        let placeholder = format!("[{} #{count}]", kind.word());
        self.originals.insert(placeholder.clone(), Original { kind, text: original.to_owned() });
        placeholder
    }
}

/// Whether a text holds something that was replaced, so that it cannot be said to a customer as it is.
#[must_use]
pub fn has_placeholder(text: &str) -> bool {
    Kind::ALL.iter().any(|kind| {
        let open = format!("[{} #", kind.word());
        text.match_indices(&open).any(|(at, _)| {
            let rest = text.get(at + open.len()..).unwrap_or_default();
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && rest.get(digits..).is_some_and(|rest| rest.starts_with(']'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redact(text: &str) -> String {
        Redaction::new(&RedactionSettings::default(), &[], &[]).text(text)
    }

    #[test]
    fn personal_data_is_replaced_and_everything_else_stays() {
        let cases = [
            ("Paid with 4111 1111 1111 1111 today.", "Paid with [card #1] today."),
            ("Paid with 4111-1111-1111-1111.", "Paid with [card #1]."),
            ("Amex 378282246310005", "Amex [card #1]"),
            ("Order 4111 1111 1111 1112 is no card.", "Order 4111 1111 1111 1112 is no card."),
            ("IBAN AT61 1904 3002 3457 3201 and more", "IBAN [account #1] and more"),
            ("iban de89370400440532013000.", "iban [account #1]."),
            ("GB82 WEST 1234 5698 7654 32", "[account #1]"),
            ("DE89 3704 0044 0532 0130 01 has wrong digits", "DE89 3704 0044 0532 0130 01 has wrong digits"),
            ("Mail jane.doe@example.org please", "Mail [e-mail #1] please"),
            ("[write](mailto:j.doe@mail.example.co.uk)", "[write](mailto:[e-mail #1])"),
            ("Mrs Huber, +43 664 123 45 67", "Mrs Huber, [phone #1]"),
            ("Tel. 0664 1234567, Huber", "Tel. [phone #1], Huber"),
            ("Anna: (030) 901820-12", "Anna: [phone #1]"),
            ("mobile: 612 345 678", "mobile: [phone #1]"),
            ("Bob, (415) 555-2671", "Bob, [phone #1]"),
            ("SSN 123-45-6789", "SSN [id number #1]"),
            ("00 49 30 901820", "[phone #1]"),
            ("01 02 03 04 05", "[phone #1]"),
            ("Fullwidth +４９ ３０ ９０１８２０", "Fullwidth [phone #1]"),
            ("hidden 4111\u{200b}111111111111", "hidden [card #1]"),
            ("a@b.example, again a@b.example, and c@b.example", "[e-mail #1], again [e-mail #1], and [e-mail #2]"),
        ];
        for (text, expected) in cases {
            assert_eq!(redact(text), expected, "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_personal_data_stays() {
        let texts = [
            "We open on 2026-11-23 at 09:00 and close at 18:00.",
            "Valid from 01.02.2026 to 28.02.2026.",
            "Order number 100200300400500 of 23/11/2026.",
            "Article 0123-456 costs 1.299,00 euros, or 1 299.00 in the shop.",
            "Frame size 52-54 cm, tyres 43-622, 10 x 12 speed.",
            "Parcels up to 31.5 kg, 120 x 60 x 60 cm; 1000000 pieces.",
            "ISBN 978-3-16-148410-0",
            "Version 1.2.3.4, port 8080, 192.168.0.1",
            "Postcode 6020 Innsbruck, Museumstrasse 12-14",
            "the café@night event, @alpenrad on Instagram, 3 @ 5 euros",
            "Discount of 10 % from 50, 100, 200 or 500 euros.",
        ];
        for text in texts {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn ways_to_reach_the_page_stay() {
        let stays = [
            "Write to service@alpenrad.example.",
            "Call us: +43 512 555 0142, Monday to Friday.",
            "Freephone 0800 123 456 or +1 800 555 0199",
            "# Contact\n\n- E-mail: anna@alpenrad.example\n- Telephone: +43 512 555 0142\n",
            "Kundenservice: 0512 / 555 01 42",
            "Llámenos al +34 612 345 678",
            "Write to us:\nanna@alpenrad.example",
        ];
        for text in stays {
            assert_eq!(redact(text), text);
        }
        // Cards and accounts never do.
        assert_eq!(redact("Call us and say 4111 1111 1111 1111"), "Call us and say [card #1]");
        assert_eq!(
            redact("# Contact\n\nhello\n\n# Customers\n\nanna@x.example\n"),
            "# Contact\n\nhello\n\n# Customers\n\n[e-mail #1]\n"
        );
        let settings = RedactionSettings::default();
        let mut answer = Redaction::new(&settings, &[], &[]);
        assert_eq!(
            answer.text_beside("Call +43 512 555 0142.", "How can I reach you by phone?"),
            "Call +43 512 555 0142."
        );
        assert_eq!(answer.text_beside("Ask Eva, +43 512 555 0143.", "Who mends wheels?"), "Ask Eva, [phone #1].");
    }

    #[test]
    fn a_strict_host_keeps_what_is_listed_or_labelled() {
        let settings = RedactionSettings {
            contacts: Contacts::Strict,
            public_contacts: vec!["@shop.example".into(), "0043 (512) 555 0142".into()],
            ..RedactionSettings::default()
        };
        let page = ["anna@other.example".to_owned()];
        let text =
            "Call us: +43 512 5550142, or +43 512 5550143. a@shop.example, anna@other.example, service@x.example";
        let mut redaction = Redaction::new(&settings, &page, &[]);
        assert_eq!(
            redaction.text(text),
            "Call us: +43 512 5550142, or [phone #1]. a@shop.example, anna@other.example, [e-mail #1]"
        );
        let originals = redaction.into_originals();
        assert_eq!(originals["[phone #1]"].text, "+43 512 5550143");
        assert!(!format!("{originals:?}").contains("5550143"), "no Debug shows an original");
        let labels = ["public-contact".to_owned()];
        assert_eq!(
            Redaction::new(&settings, &[], &labels).text("b@x.example 4111111111111111"),
            "b@x.example [card #1]"
        );
        let off = RedactionSettings { enabled: false, ..RedactionSettings::default() };
        assert_eq!(Redaction::new(&off, &[], &[]).text("b@x.example"), "b@x.example");
    }

    #[test]
    fn what_people_said_loses_every_long_number_and_keeps_prices_and_times() {
        let settings = RedactionSettings {
            public_contacts: vec!["service@shop.example".to_owned()],
            ..RedactionSettings::default()
        };
        let settings = settings.of_conversations();
        for (text, expected) in [
            (
                "My order 4711-889900 is late, mail anna.b@mail.example!",
                "My order [number #1] is late, mail [e-mail #1]!",
            ),
            ("Call us: +43 660 123 45 67.", "Call us: [phone #1]."),
            ("Write to service@shop.example", "Write to service@shop.example"),
            ("Card 4111 1111 1111 1111 expires", "Card [card #1] expires"),
            ("IBAN AT611904300234573201, please", "IBAN [account #1], please"),
            ("Customer 88123456, frame WX8812345", "Customer [number #1], frame WX[number #2]"),
            (
                "It costs 1.299,00 euros, open 9:00 to 12:30, free from 60, until 2026-12-24 or 24.12.2026.",
                "It costs 1.299,00 euros, open 9:00 to 12:30, free from 60, until 2026-12-24 or 24.12.2026.",
            ),
            ("", ""),
        ] {
            assert_eq!(Redaction::new(&settings, &[], &[]).text(text), expected);
        }
    }

    #[test]
    fn a_placeholder_is_recognised() {
        assert!(
            has_placeholder("[number #3]")
                && has_placeholder("Ask [phone #12] now")
                && has_placeholder("[id number #1]")
        );
        assert!(!has_placeholder("[phone] #1, [phone #], [phone #x]"));
    }
}

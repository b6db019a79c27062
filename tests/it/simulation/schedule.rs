//! What happens in the simulated hours, made from a seed alone: the same seed gives the same schedule.

use std::collections::HashMap;

use frontdesk_testkit::{Outcome, wire};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::Value;

pub const MINUTE_MS: i64 = 60_000;
pub const HOUR_MS: i64 = 60 * MINUTE_MS;

/// How many pages share the customers.
pub const PAGES: usize = 2;
/// Customers who begin to write in one hour.
const CUSTOMERS_PER_HOUR: usize = 12;

/// What somebody does at some time.
#[derive(Debug, Clone)]
pub enum Act {
    /// Meta delivers an event of a customer's; `happened_ms` is its own time, before the delivery.
    Event(Delivery),
    /// A person of the Page writes in Meta's inbox.
    InboxWord {
        customer: usize,
    },
    /// Agent Ada takes over, answers, or hands back.
    TakeOver {
        customer: usize,
    },
    Reply {
        customer: usize,
    },
    HandBack {
        customer: usize,
    },
    /// Ada closes the customer's open ticket.
    Resolve {
        customer: usize,
    },
    /// Meta gives the thread to another app, and back to us.
    GiveAway {
        customer: usize,
    },
    GiveBack {
        customer: usize,
    },
    /// The next call of the Send API meets this.
    SendFate(Outcome),
    /// A Page's token dies, and is mended.
    KillToken {
        page: usize,
    },
    MendToken {
        page: usize,
    },
    /// Wake-ups that wait in Redis are lost, with stream and group.
    LoseWakeUps,
    /// The host dies so long after what happens at this time, wherever it is then, and another starts on what it left.
    Kill {
        after_ms: u64,
    },
}

/// An event and what becomes of it on its way.
#[derive(Debug, Clone)]
pub struct Delivery {
    pub customer: usize,
    pub happened_ms: i64,
    pub kind: Kind,
    /// `standby` instead of `messaging`.
    pub in_standby: bool,
}

/// What a customer does.
#[derive(Debug, Clone)]
pub enum Kind {
    /// Asks for an answer.
    Text {
        mid: String,
        text: String,
    },
    /// Taps a button whose title asks.
    Postback {
        mid: String,
        title: String,
    },
    Edit {
        mid: String,
        text: String,
    },
    Unsend {
        mid: String,
    },
    /// Opens the window, asks nothing.
    Reaction {
        mid: String,
    },
    Sticker {
        mid: String,
    },
    Receipt,
    /// A kind that nobody knows.
    Unknown,
}

impl Kind {
    /// Id and words of what asks for an answer.
    pub fn inquiry(&self) -> Option<(&str, &str)> {
        match self {
            Self::Text { mid, text } => Some((mid, text)),
            Self::Postback { mid, title } => Some((mid, title)),
            _ => None,
        }
    }

    pub fn fields(&self, at_ms: i64) -> Value {
        match self {
            Self::Text { mid, text } => wire::text(mid, text),
            Self::Postback { mid, title } => wire::postback(mid, title, "ASK"),
            Self::Edit { mid, text } => wire::edit(mid, text, 1),
            Self::Unsend { mid } => wire::unsend(mid),
            Self::Reaction { mid } => wire::reaction(mid, "react", "❤"),
            Self::Sticker { mid } => wire::like(mid),
            Self::Receipt => wire::read(at_ms),
            Self::Unknown => serde_json::json!({ "next_years_event": { "at": at_ms } }),
        }
    }
}

/// Something to do at a time, in milliseconds after the beginning.
#[derive(Debug, Clone)]
pub struct Step {
    pub at_ms: i64,
    pub act: Act,
}

/// The Page that a customer writes to.
pub fn page_of(customer: usize) -> usize {
    customer % PAGES
}

/// What the Page's knowledge answers, with the answers: most people ask such things, and each asks another one next time, because
/// who asks the same again is given to a person.
pub const ANSWERABLE: [(&str, &str); 12] = [
    ("Do you ship to Austria?", "Yes, we ship every parcel to Austria within three working days."),
    ("When are you open on Saturdays?", "On Saturdays we are open from nine to one."),
    ("How long may I return an order?", "You may return an order within thirty days."),
    ("Which teas are free of caffeine?", "Rooibos and fruit teas are free of caffeine."),
    ("How can I pay?", "You can pay by card, by invoice or in cash at the shop."),
    ("What does gift wrapping cost?", "Gift wrapping costs two euros for each parcel."),
    ("Where is your shop?", "Our shop is at Lindengasse 7 in Graz."),
    ("Do you sell vouchers?", "Yes, we sell vouchers from ten euros on."),
    ("Is the green tea organic?", "Yes, all our green tea is organic."),
    ("How should I store loose tea?", "Store loose tea in a closed tin, dry and dark."),
    ("Do you offer tea tastings?", "Yes, we offer tea tastings on the first Friday of each month."),
    ("How hot should water for green tea be?", "Water for green tea should have seventy degrees."),
];

/// What goes to a person.
const FOR_PEOPLE: [&str; 3] = [
    "I want to talk to a real person please",
    "My order arrived broken and I am very angry",
    "Kann ich meine Bestellung noch ändern?",
];
/// One question in so many is for a person.
const FOR_PEOPLE_ONE_IN: u32 = 12;

/// The whole schedule in order of time.
pub fn schedule(seed: u64, hours: i64) -> Vec<Step> {
    let mut maker = Maker { chance: StdRng::seed_from_u64(seed), steps: Vec::new(), mids: 0, asked: HashMap::new() };
    let customers = CUSTOMERS_PER_HOUR * usize::try_from(hours).unwrap_or(1);
    let end_ms = hours * HOUR_MS;
    for customer in 0..customers {
        maker.customer(customer, end_ms);
    }
    for _ in 0..hours {
        maker.trouble(end_ms);
    }
    let mut steps = maker.steps;
    // Stable: what was made first happens first at equal times.
    steps.sort_by_key(|step| step.at_ms);
    steps
}

struct Maker {
    chance: StdRng,
    steps: Vec<Step>,
    mids: u64,
    /// How many answerable questions each customer has asked.
    asked: HashMap<usize, usize>,
}

impl Maker {
    fn add(&mut self, at_ms: i64, act: Act) {
        self.steps.push(Step { at_ms, act });
    }

    fn mid(&mut self) -> String {
        self.mids += 1;
        format!("m_sim_{:06}", self.mids)
    }

    fn one_in(&mut self, count: u32) -> bool {
        self.chance.random_ratio(1, count)
    }

    fn question(&mut self, customer: usize) -> &'static str {
        if self.one_in(FOR_PEOPLE_ONE_IN) {
            return FOR_PEOPLE[self.chance.random_range(0..FOR_PEOPLE.len())];
        }
        let asked = self.asked.entry(customer).or_insert(customer);
        *asked += 1;
        ANSWERABLE[*asked % ANSWERABLE.len()].0
    }

    fn between(&mut self, from_ms: i64, to_ms: i64) -> i64 {
        self.chance.random_range(from_ms..to_ms.max(from_ms + 1))
    }

    /// One to four visits, spread over the time.
    fn customer(&mut self, customer: usize, end_ms: i64) {
        let mut at_ms = self.between(0, end_ms);
        for _ in 0..self.chance.random_range(1..=4) {
            at_ms = self.visit(customer, at_ms) + self.between(MINUTE_MS, 5 * HOUR_MS);
            if at_ms >= end_ms {
                return;
            }
        }
    }

    /// A question or a burst of them, and what people do about it. Gives when it is over.
    fn visit(&mut self, customer: usize, start_ms: i64) -> i64 {
        let mut at_ms = start_ms;
        let messages = if self.one_in(4) { self.chance.random_range(2..=5) } else { 1 };
        for _ in 0..messages {
            self.ask(customer, at_ms);
            at_ms += self.between(200, 4_000);
        }
        if self.one_in(4) {
            let mid = self.mid();
            let kind = match self.chance.random_range(0..4) {
                0 => Kind::Reaction { mid },
                1 => Kind::Sticker { mid },
                2 => Kind::Receipt,
                _ => Kind::Unknown,
            };
            self.event(customer, at_ms, kind, false);
        }
        match self.chance.random_range(0..16) {
            0 => self.inbox_answers(customer, &mut at_ms),
            1 => self.agent_answers(customer, &mut at_ms),
            2 => self.other_app_answers(customer, &mut at_ms),
            // Days later, when only a person may still write, and only for a week.
            3 => {
                let late_ms = self.between(20 * HOUR_MS, 8 * 24 * HOUR_MS);
                self.add(at_ms + late_ms, Act::Reply { customer });
                self.add(at_ms + late_ms + HOUR_MS, Act::HandBack { customer });
            }
            _ => {}
        }
        // People look at the open tickets now and then, and then the machine has the conversation again.
        let looked_ms = at_ms + self.between(5 * MINUTE_MS, 45 * MINUTE_MS);
        self.add(looked_ms, Act::Resolve { customer });
        at_ms
    }

    fn ask(&mut self, customer: usize, at_ms: i64) {
        let mid = self.mid();
        let question = self.question(customer);
        // Now and then Meta delivers a message nearly a day late: its window is about to close.
        let happened_ms =
            if self.one_in(40) { at_ms - 24 * HOUR_MS + self.between(MINUTE_MS, 10 * MINUTE_MS) } else { at_ms };
        if happened_ms < at_ms && self.one_in(2) {
            self.add(at_ms, Act::SendFate(Outcome::RateLimited { code: 613, regain_after_minutes: 15 }));
        }
        match self.chance.random_range(0..20) {
            0 => {
                // Withdrawn: at once, amid the answer, or much later; and the withdrawal may overtake the message.
                let text = format!("{question} withdrawn-{mid}");
                self.event(customer, at_ms, Kind::Text { mid: mid.clone(), text }, false);
                let after_ms = [-500, 0, 300, 20 * MINUTE_MS][self.chance.random_range(0..4)];
                self.event(customer, (at_ms + after_ms).max(0), Kind::Unsend { mid }, false);
            }
            1 => {
                self.event(
                    customer,
                    at_ms,
                    Kind::Text { mid: mid.clone(), text: "Do you ship to Germany, ehm,".into() },
                    false,
                );
                let after_ms = self.between(0, 2_000);
                self.event(customer, at_ms + after_ms, Kind::Edit { mid, text: question.to_owned() }, false);
            }
            asks => {
                let kind = match asks {
                    2 => Kind::Postback { mid, title: question.to_owned() },
                    _ => Kind::Text { mid, text: question.to_owned() },
                };
                let delivery = Delivery { customer, happened_ms, kind, in_standby: false };
                self.deliver(at_ms, delivery);
            }
        }
    }

    fn event(&mut self, customer: usize, at_ms: i64, kind: Kind, in_standby: bool) {
        self.deliver(at_ms, Delivery { customer, happened_ms: at_ms, kind, in_standby });
    }

    /// On its way an event may be late (so that later ones overtake it), and Meta may repeat it.
    fn deliver(&mut self, at_ms: i64, delivery: Delivery) {
        let late_ms = match self.chance.random_range(0..12) {
            0 => self.between(1_000, 30_000),
            1 => self.between(MINUTE_MS, 10 * MINUTE_MS),
            _ => 0,
        };
        let copies = if self.one_in(8) { self.chance.random_range(2..=3) } else { 1 };
        for copy in 0..copies {
            let again_ms = if copy == 0 { 0 } else { self.between(0, 20 * MINUTE_MS) };
            self.add(at_ms + late_ms + again_ms, Act::Event(delivery.clone()));
        }
    }

    fn inbox_answers(&mut self, customer: usize, at_ms: &mut i64) {
        *at_ms += self.between(0, 10_000);
        self.add(*at_ms, Act::InboxWord { customer });
        self.person_talks(customer, at_ms);
    }

    fn agent_answers(&mut self, customer: usize, at_ms: &mut i64) {
        *at_ms += self.between(0, 10_000);
        self.add(*at_ms, Act::TakeOver { customer });
        *at_ms += self.between(1_000, MINUTE_MS);
        self.add(*at_ms, Act::Reply { customer });
        self.person_talks(customer, at_ms);
    }

    /// The customer writes to the person, who hands back or forgets to.
    fn person_talks(&mut self, customer: usize, at_ms: &mut i64) {
        *at_ms += self.between(1_000, 5 * MINUTE_MS);
        self.ask(customer, *at_ms);
        if !self.one_in(4) {
            *at_ms += self.between(20 * MINUTE_MS, 40 * MINUTE_MS);
            self.add(*at_ms, Act::HandBack { customer });
            *at_ms += self.between(30_000, 10 * MINUTE_MS);
            self.ask(customer, *at_ms);
        }
    }

    fn other_app_answers(&mut self, customer: usize, at_ms: &mut i64) {
        *at_ms += self.between(0, 10_000);
        self.add(*at_ms, Act::GiveAway { customer });
        for _ in 0..2 {
            *at_ms += self.between(1_000, MINUTE_MS);
            let mid = self.mid();
            let text = self.question(customer).to_owned();
            self.event(customer, *at_ms, Kind::Text { mid, text }, true);
        }
        // Later than the latest of its copies.
        *at_ms += 40 * MINUTE_MS;
        self.add(*at_ms, Act::GiveBack { customer });
    }

    /// What goes wrong around the host, about once an hour each.
    fn trouble(&mut self, end_ms: i64) {
        for _ in 0..4 {
            let outcome = match self.chance.random_range(0..12) {
                0 => Outcome::LostResponse,
                1 => Outcome::CutConnection,
                2 => Outcome::UnreadableSuccess,
                3 => Outcome::Hang { is_taken: self.chance.random() },
                4 => Outcome::error(1, 1_357_046),
                5 => Outcome::RateLimited { code: 613, regain_after_minutes: self.chance.random_range(1..5) },
                6 => Outcome::error(10, 2_018_278),
                7 => Outcome::error(551, 0),
                8 => Outcome::Error { status: 500, code: 2, subcode: None, is_transient: true },
                9 => Outcome::Error { status: 400, code: 1200, subcode: None, is_transient: true },
                10 => Outcome::Html { status: 502 },
                _ => Outcome::Empty { status: 429 },
            };
            let at_ms = self.between(0, end_ms);
            self.add(at_ms, Act::SendFate(outcome));
        }
        if self.one_in(6) {
            let (at_ms, page) = (self.between(0, end_ms), self.chance.random_range(0..PAGES));
            self.add(at_ms, Act::KillToken { page });
            let mended_ms = at_ms + self.between(MINUTE_MS, 40 * MINUTE_MS);
            self.add(mended_ms, Act::MendToken { page });
        }
        let at_ms = self.between(0, end_ms);
        self.add(at_ms, Act::LoseWakeUps);
        // Amid the work: together with something that somebody asked.
        let asks: Vec<i64> = self
            .steps
            .iter()
            .filter(|step| matches!(&step.act, Act::Event(d) if d.kind.inquiry().is_some()))
            .map(|s| s.at_ms)
            .collect();
        if let Some(at_ms) = asks.get(self.chance.random_range(0..asks.len().max(1))).copied() {
            let after_ms = self.chance.random_range(0..400);
            self.add(at_ms, Act::Kill { after_ms });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_its_schedule_again_and_another_gives_another() {
        let text = |seed| format!("{:?}", schedule(seed, 2));
        assert_eq!(text(7), text(7));
        assert_ne!(text(7), text(8));
        let day = schedule(7, 24);
        assert!(day.len() > 500, "{}", day.len());
        assert!(day.windows(2).all(|pair| pair[0].at_ms <= pair[1].at_ms));
    }
}

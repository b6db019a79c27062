//! A shop's catalogue of questions and answers, made of word lists: the same number gives the same text everywhere.
//!
//! A family is an adjective, a kind of thing, and a handful of words of its own; its passages speak of models and aspects.
//! Passages of a family are near each other, and families that share a kind are nearer than those that do not.

use std::ops::Range;

const ADJECTIVES: [&str; 24] = [
    "alpine",
    "urban",
    "folding",
    "electric",
    "vintage",
    "carbon",
    "touring",
    "junior",
    "compact",
    "cargo",
    "racing",
    "winter",
    "trekking",
    "gravel",
    "titanium",
    "waterproof",
    "ultralight",
    "heated",
    "reflective",
    "modular",
    "magnetic",
    "ceramic",
    "wireless",
    "insulated",
];
const THINGS: [&str; 48] = [
    "bicycle",
    "helmet",
    "saddle",
    "pannier",
    "trailer",
    "pump",
    "lock",
    "jacket",
    "glove",
    "pedal",
    "chain",
    "handlebar",
    "lamp",
    "battery",
    "charger",
    "tyre",
    "wheel",
    "brake",
    "shoe",
    "bottle",
    "rack",
    "mudguard",
    "bell",
    "mirror",
    "computer",
    "tent",
    "backpack",
    "stove",
    "kettle",
    "thermos",
    "headlamp",
    "compass",
    "map",
    "blanket",
    "hammock",
    "poncho",
    "scarf",
    "goggles",
    "sledge",
    "snowshoe",
    "rope",
    "harness",
    "whistle",
    "axe",
    "shovel",
    "lantern",
    "cooler",
    "filter",
];
const ASPECTS: [(&str, &str); 16] = [
    ("warranty", "is covered for defects of material and workmanship"),
    ("weight", "was weighed without packaging and accessories"),
    ("delivery", "leaves our warehouse on the next working day"),
    ("assembly", "comes with tools and a printed manual"),
    ("cleaning", "should be cleaned with lukewarm water and mild soap"),
    ("spare parts", "has parts that we keep in stock for ten years"),
    ("size", "fits most people according to the table on its page"),
    ("colour", "may look different on your screen"),
    ("price", "is sold at the same price in the shop and online"),
    ("return", "can be returned unused within the usual period"),
    ("repair", "is repaired in our own workshop"),
    ("storage", "should be kept dry and away from direct sunlight"),
    ("compatibility", "works together with other makers' products"),
    ("maintenance", "needs a check once a year"),
    ("rental", "can be rented by the day or the week"),
    ("discount", "is part of the seasonal offer for members"),
];
const DETAILS: [&str; 40] = [
    "aluminium",
    "leather",
    "bamboo",
    "silicone",
    "merino",
    "nylon",
    "polyester",
    "rubber",
    "steel",
    "cork",
    "hinge",
    "zipper",
    "buckle",
    "strap",
    "valve",
    "gasket",
    "bearing",
    "spring",
    "lever",
    "cable",
    "sensor",
    "display",
    "adapter",
    "clamp",
    "seam",
    "lining",
    "pocket",
    "visor",
    "spoke",
    "sleeve",
    "axle",
    "thread",
    "filament",
    "burner",
    "nozzle",
    "grip",
    "hook",
    "cover",
    "plate",
    "frame",
];
const PLACES: [&str; 16] = [
    "Vienna",
    "Graz",
    "Linz",
    "Salzburg",
    "Innsbruck",
    "Munich",
    "Zurich",
    "Bolzano",
    "Ljubljana",
    "Bregenz",
    "Berlin",
    "Hamburg",
    "Basel",
    "Trento",
    "Maribor",
    "Villach",
];
const FAMILIES: usize = 1_000;

/// A customer's question, and a mark of the passage that it was made of.
#[derive(Debug, Clone)]
pub struct Question {
    pub text: String,
    pub wanted: String,
}

/// SplitMix64: the same numbers on every machine and with every release of every library.
struct Random(u64);

impl Random {
    fn of(kind: u64, number: usize) -> Self {
        Self(kind << 48 ^ number as u64)
    }

    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut state = self.0;
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((state ^ (state >> 31)) % bound.max(1) as u64).unwrap_or(0)
    }

    fn pick<T: Copy + Default>(&mut self, list: &[T]) -> T {
        let at = self.below(list.len());
        list.get(at).copied().unwrap_or_default()
    }
}

/// The words that all passages of a family share.
struct Family {
    adjective: &'static str,
    thing: &'static str,
    details: [&'static str; 4],
}

fn family(number: usize) -> Family {
    let mut random = Random::of(1, number);
    Family {
        adjective: random.pick(&ADJECTIVES),
        thing: random.pick(&THINGS),
        details: std::array::from_fn(|_| random.pick(&DETAILS)),
    }
}

/// What a passage speaks of.
struct Passage {
    family: Family,
    model: String,
    aspect: (&'static str, &'static str),
    random: Random,
}

fn passage(number: usize) -> Passage {
    let mut random = Random::of(2, number);
    let family = family(random.below(FAMILIES));
    let letter = char::from(b'A' + u8::try_from(random.below(26)).unwrap_or(0));
    // The number makes the model unique.
    let model = format!("{letter}{number:06}");
    let aspect = random.pick(&ASPECTS);
    Passage { family, model, aspect, random }
}

/// Rows of a FAQ file.
pub fn csv(numbers: Range<usize>) -> String {
    let mut text = String::from("question,answer\n");
    for number in numbers {
        let Passage { family, model, aspect, mut random } = passage(number);
        let Family { adjective, thing, details } = family;
        let (name, sentence) = aspect;
        let (first, second) = (random.pick(&details), random.pick(&details));
        let (amount, days, place) = (random.below(900) + 9, random.below(9) + 1, random.pick(&PLACES));
        text.push_str(&format!(
            "What about the {name} of the {adjective} {thing} {model}?,\"The {adjective} {thing} {model} {sentence}. Its {first} \
             and {second} are checked before it leaves us. Customers in {place} wait {days} working days; it costs {amount} \
             euros with its {first}, and a spare {second} is {} euros.\"\n",
            amount / 7 + 1
        ));
    }
    text
}

/// A guide in Markdown: each number has a section that is long enough to be cut into several passages.
pub fn guide(numbers: Range<usize>) -> String {
    let mut text = String::from("# Guide\n");
    for number in numbers {
        let Passage { family, model, mut random, .. } = passage(number);
        let Family { adjective, thing, details } = family;
        text.push_str(&format!("\n## The {adjective} {thing} {model}\n\n"));
        for (name, sentence) in ASPECTS {
            let (first, second, place) = (random.pick(&details), random.pick(&details), random.pick(&PLACES));
            text.push_str(&format!(
                "On {name}: the {adjective} {thing} {model} {sentence}. Whoever changes its {first} should look at the {second} \
                 too, because the two wear out together. In {place} the workshop does this in {} days, with the {first} that it \
                 has in stock, and tells you beforehand what the {second} will cost.\n\n",
                random.below(9) + 1
            ));
        }
    }
    text
}

/// A question as a customer would ask it of one of these passages: the model, an aspect, and words that no passage has.
pub fn question(number: usize, passages: Range<usize>) -> Question {
    let mut random = Random::of(3, number);
    let asked = passages.start + random.below(passages.len());
    let Passage { family, model, aspect: (aspect, _), random: mut of_passage } = passage(asked);
    let detail = of_passage.pick(&family.details);
    let Family { adjective, thing, .. } = family;
    let text = match random.below(4) {
        0 => format!("Hi! Can you tell me something about the {aspect} of your {thing} {model}?"),
        1 => format!("I bought the {adjective} {thing} {model} last week and have a question: {aspect}?"),
        2 => format!("{adjective} {thing} {model}, is the {detail} strong enough? And the {aspect}?"),
        _ => format!("How is the {aspect} of the {model} with the {detail}? I live in {}.", random.pick(&PLACES)),
    };
    Question { text, wanted: model }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_number_gives_the_same_text_and_questions_meet_their_passage() {
        assert_eq!(csv(5..8), csv(5..8));
        assert_eq!(csv(0..1_000).lines().collect::<std::collections::HashSet<_>>().len(), 1_001);
        for number in 0..50 {
            let question = question(number, 0..1_000);
            assert!(question.text.contains(&question.wanted));
            let of_it = csv(0..1_000).lines().filter(|line| line.contains(&question.wanted)).count();
            assert_eq!(of_it, 1, "{question:?}");
        }
    }
}

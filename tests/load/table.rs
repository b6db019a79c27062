//! What was measured, as a table for people and as JSON for programs.

use std::fmt;

use serde::Serialize;

/// A number with its unit; the unit decides how it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "unit", content = "value", rename_all = "snake_case")]
pub enum Figure {
    PerSecond(f64),
    Micros(f64),
    Millis(f64),
    Mebibytes(f64),
    /// 0 to 1.
    Share(f64),
    Count(u64),
}

impl Figure {
    #[expect(clippy::cast_precision_loss, reason = "counts here stay far below 2^52")]
    fn value(self) -> f64 {
        match self {
            Self::PerSecond(value)
            | Self::Micros(value)
            | Self::Millis(value)
            | Self::Mebibytes(value)
            | Self::Share(value) => value,
            Self::Count(count) => count as f64,
        }
    }

    /// The same unit with another number.
    fn with(self, value: f64) -> Self {
        match self {
            Self::PerSecond(_) => Self::PerSecond(value),
            Self::Micros(_) => Self::Micros(value),
            Self::Millis(_) => Self::Millis(value),
            Self::Mebibytes(_) => Self::Mebibytes(value),
            Self::Share(_) | Self::Count(_) => Self::Share(value),
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::PerSecond(value) if value < 100.0 => write!(f, "{value:.1} /s"),
            Self::PerSecond(value) => write!(f, "{value:.0} /s"),
            Self::Micros(value) => write!(f, "{value:.1} µs"),
            Self::Millis(value) => write!(f, "{value:.2} ms"),
            Self::Mebibytes(value) => write!(f, "{value:.1} MiB"),
            Self::Share(value) => write!(f, "{value:.4}"),
            Self::Count(count) => write!(f, "{count}"),
        }
    }
}

/// What the design asks for: of the figure itself, or of its ratio to the floor.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(tag = "kind", content = "bound", rename_all = "snake_case")]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
    RatioAtLeast(f64),
    RatioAtMost(f64),
}

/// One line of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    pub measure: &'static str,
    pub what: String,
    pub ours: Figure,
    pub floor: Option<Floor>,
    /// Ours divided by the floor.
    pub ratio: Option<f64>,
    pub aim: Option<Aim>,
    pub met: Option<bool>,
}

/// What was measured beside ours, in the same run.
#[derive(Debug, Clone, Serialize)]
pub struct Floor {
    pub name: String,
    pub figure: Figure,
}

impl Row {
    pub fn new(measure: &'static str, what: impl Into<String>, ours: Figure) -> Self {
        Self { measure, what: what.into(), ours, floor: None, ratio: None, aim: None, met: None }
    }

    pub fn against(mut self, name: impl Into<String>, figure: Figure) -> Self {
        self.ratio = (figure.value() > 0.0).then(|| self.ours.value() / figure.value());
        self.floor = Some(Floor { name: name.into(), figure });
        self
    }

    pub fn aim(mut self, aim: Aim) -> Self {
        let value = self.ours.value();
        self.met = match aim {
            Aim::AtLeast(bound) => Some(value >= bound),
            Aim::AtMost(bound) => Some(value <= bound),
            Aim::RatioAtLeast(bound) => self.ratio.map(|ratio| ratio >= bound),
            Aim::RatioAtMost(bound) => self.ratio.map(|ratio| ratio <= bound),
        };
        self.aim = Some(aim);
        self
    }

    fn cells(&self) -> [String; 8] {
        let none = String::new;
        let aim = |aim: Aim| match aim {
            Aim::AtLeast(bound) => format!("at least {}", self.ours.with(bound)),
            Aim::AtMost(bound) => format!("at most {}", self.ours.with(bound)),
            Aim::RatioAtLeast(bound) => format!("ratio at least {bound:.2}"),
            Aim::RatioAtMost(bound) => format!("ratio at most {bound:.2}"),
        };
        [
            self.measure.to_owned(),
            self.what.clone(),
            self.ours.to_string(),
            self.floor.as_ref().map_or_else(none, |floor| floor.name.clone()),
            self.floor.as_ref().map_or_else(none, |floor| floor.figure.to_string()),
            self.ratio.map_or_else(none, |ratio| format!("{ratio:.2}")),
            self.aim.map_or_else(none, aim),
            self.met.map_or_else(none, |met| if met { "yes" } else { "NO" }.to_owned()),
        ]
    }
}

/// What one measure gives.
#[derive(Debug, Default, Serialize)]
pub struct Findings {
    pub rows: Vec<Row>,
    /// What one must know to read the rows.
    pub notes: Vec<String>,
    /// What was lost or answered wrongly; anything here fails the run.
    pub failures: Vec<String>,
}

/// The rows in Markdown, with columns aligned for the terminal.
pub fn render(rows: &[Row]) -> String {
    let head = ["measure", "what", "Frontdesk", "floor", "floor's", "ratio", "aim", "met"].map(str::to_owned);
    let lines: Vec<[String; 8]> = std::iter::once(head).chain(rows.iter().map(Row::cells)).collect();
    let widths: [usize; 8] = std::array::from_fn(|column| {
        lines.iter().filter_map(|line| line.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    });
    let mut text = String::new();
    for (number, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).map(|(cell, width)| format!(" {cell:<width$} "));
        text.push_str(&format!("|{}|\n", cells.collect::<Vec<_>>().join("|")));
        if number == 0 {
            let rules = widths.map(|width| "-".repeat(width + 2));
            text.push_str(&format!("|{}|\n", rules.join("|")));
        }
    }
    text
}

/// Measured times of one kind.
#[derive(Debug, Default, Clone)]
pub struct Times {
    micros: Vec<f64>,
}

impl Times {
    pub fn new(mut micros: Vec<f64>) -> Self {
        micros.sort_unstable_by(f64::total_cmp);
        Self { micros }
    }

    pub fn len(&self) -> usize {
        self.micros.len()
    }

    /// The value that a share of all does not exceed; 0 when nothing was measured.
    pub fn quantile_us(&self, share: f64) -> f64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index into a list that fits in memory"
        )]
        let index = ((self.micros.len() as f64 * share).ceil() as usize).saturating_sub(1);
        self.micros.get(index).copied().unwrap_or(0.0)
    }

    pub fn median_us(&self) -> f64 {
        self.quantile_us(0.5)
    }

    pub fn median_ms(&self) -> Figure {
        Figure::Millis(self.median_us() / 1_000.0)
    }

    pub fn p99_ms(&self) -> Figure {
        Figure::Millis(self.quantile_us(0.99) / 1_000.0)
    }
}

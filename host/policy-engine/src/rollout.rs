//! `[rollout]` of `chain.toml`: what a change of the chain's folder does, once it is staged.
//!
//! ```toml
//! [rollout]
//! on_change = "activate"                   # activate (the default) | stage | shadow | canary
//! [[rollout.steps]]                        # for "canary": at least one; after the last it becomes active
//! percent = 1.0
//! minutes = 30
//! ```
//! It says how a revision comes into service, and nothing about what it does; so it is no part of a revision's id. The
//! first revision of a chain becomes active whatever it says, for nobody else could serve.

use serde::{Deserialize, Serialize};

/// Most steps of a canary.
pub const STEPS_MAX: usize = 20;
/// Longest step, in minutes: two weeks.
pub const STEP_MINUTES_MAX: u32 = 14 * 24 * 60;

/// What a changed folder does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnChange {
    /// It becomes active when the gate lets it.
    #[default]
    Activate,
    /// It is stored, and waits for somebody to move it on.
    Stage,
    /// It judges beside the active one.
    Shadow,
    /// It serves a share that grows by steps, when the gate lets it.
    Canary,
}

/// One step of a canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CanaryStep {
    /// The share of customers, in basis points: 1 to 10,000.
    pub share_bp: u16,
    /// How long it lasts.
    pub minutes: u32,
}

/// The `[rollout]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RolloutSpec {
    /// What a changed folder does.
    pub on_change: OnChange,
    /// The canary's steps; never empty with [`OnChange::Canary`].
    pub steps: Vec<CanaryStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct RawRollout {
    #[serde(default)]
    on_change: OnChange,
    #[serde(default)]
    steps: Vec<RawStep>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStep {
    percent: f64,
    minutes: u32,
}

impl RawRollout {
    pub(crate) fn checked(self) -> Result<RolloutSpec, (&'static str, String)> {
        let steps = self.steps.into_iter().map(RawStep::checked).collect::<Result<Vec<_>, _>>();
        let steps = steps.map_err(|problem| ("steps", problem))?;
        if steps.len() > STEPS_MAX {
            return Err(("steps", format!("{} steps; at most {STEPS_MAX} are possible", steps.len())));
        }
        if steps.windows(2).any(|pair| matches!(pair, [one, next] if next.share_bp <= one.share_bp)) {
            return Err(("steps", "each step must have a larger percent than the one before".to_owned()));
        }
        match self.on_change {
            OnChange::Canary if steps.is_empty() => {
                Err(("steps", "on_change = \"canary\" needs at least one [[rollout.steps]]".to_owned()))
            }
            OnChange::Canary => Ok(RolloutSpec { on_change: self.on_change, steps }),
            _ if !steps.is_empty() => Err(("steps", "steps are for on_change = \"canary\"".to_owned())),
            _ => Ok(RolloutSpec { on_change: self.on_change, steps }),
        }
    }
}

impl RawStep {
    fn checked(self) -> Result<CanaryStep, String> {
        let Self { percent, minutes } = self;
        let share_bp = share_bp(percent).filter(|points| *points > 0);
        let share_bp = share_bp.ok_or_else(|| format!("percent is {percent}, expected 0.01 to 100"))?;
        if !(1..=STEP_MINUTES_MAX).contains(&minutes) {
            return Err(format!("minutes is {minutes}, expected 1 to {STEP_MINUTES_MAX}"));
        }
        Ok(CanaryStep { share_bp, minutes })
    }
}

/// A percentage in steps of 0.01, as basis points; `None` outside 0 to 100.
#[must_use]
pub fn share_bp(percent: f64) -> Option<u16> {
    if !(0.0..=100.0).contains(&percent) {
        return None;
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10,000, checked above")]
    let points = (percent * 100.0).round() as u16;
    Some(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<RolloutSpec, String> {
        let raw: RawRollout = toml::from_str(text).map_err(|error| error.to_string())?;
        raw.checked().map_err(|(field, problem)| format!("{field}: {problem}"))
    }

    #[test]
    fn steps_are_checked_at_their_limits() {
        let step = |percent: &str, minutes: u32| format!("[[steps]]\npercent = {percent}\nminutes = {minutes}\n");
        let canary = |steps: &str| parse(&format!("on_change = \"canary\"\n{steps}"));
        let spec = canary(&format!("{}{}", step("0.1", 1), step("100.0", STEP_MINUTES_MAX))).unwrap();
        assert_eq!(spec.steps.iter().map(|step| step.share_bp).collect::<Vec<_>>(), [10, 10_000]);
        assert_eq!(parse("").unwrap(), RolloutSpec::default());
        assert_eq!(parse("on_change = \"shadow\"").unwrap().on_change, OnChange::Shadow);
        for (found, expected) in [
            (canary(""), "at least one"),
            (canary(&step("0.001", 1)), "0.01 to 100"),
            (canary(&step("100.01", 1)), "0.01 to 100"),
            (canary(&step("1.0", 0)), "minutes is 0"),
            (canary(&step("1.0", STEP_MINUTES_MAX + 1)), "expected 1 to"),
            (canary(&format!("{}{}", step("10.0", 1), step("10.0", 1))), "larger percent"),
            (parse(&step("10.0", 1)), "steps are for"),
            (parse("on_change = \"now\""), "now"),
            (parse("when = \"now\""), "when"),
        ] {
            let found = found.unwrap_err();
            assert!(found.contains(expected), "{found}");
        }
        let many: String = (1..=u32::try_from(STEPS_MAX).unwrap() + 1).map(|n| step(&format!("{n}.0"), 1)).collect();
        assert!(canary(&many).unwrap_err().contains("at most 20"));
    }
}

//! How far two texts are apart.

/// Characters of a text that are looked at; the cost grows with their square.
const CHARACTERS_MAX: usize = 2_000;

/// Characters that were inserted, deleted or replaced, as a share of the longer text: 0 for equal texts, 1 for texts
/// with nothing in common. What is beyond the first 2,000 characters does not count.
#[must_use]
pub fn edit_distance(one: &str, other: &str) -> f64 {
    let one: Vec<char> = one.chars().take(CHARACTERS_MAX).collect();
    let other: Vec<char> = other.chars().take(CHARACTERS_MAX).collect();
    let longer = one.len().max(other.len());
    if longer == 0 || one == other {
        return 0.0;
    }
    // One row of Levenshtein's table, without its first column.
    let mut row: Vec<usize> = (1..=other.len()).collect();
    for (i, a) in one.iter().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (cell, b) in row.iter_mut().zip(&other) {
            let above = *cell;
            left = (diagonal + usize::from(a != b)).min(left + 1).min(above + 1);
            (*cell, diagonal) = (left, above);
        }
    }
    let changed = row.last().copied().unwrap_or(one.len());
    #[expect(clippy::cast_precision_loss, reason = "both are at most a few thousand")]
    let share = changed as f64 / longer as f64;
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_distance_counts_changed_characters() {
        for (one, other, expected) in [
            ("", "", 0.0),
            ("abc", "abc", 0.0),
            ("abc", "", 1.0),
            ("", "abc", 1.0),
            ("abcd", "abed", 0.25),
            ("kitten", "sitting", 3.0 / 7.0),
        ] {
            assert!((edit_distance(one, other) - expected).abs() < 1e-9, "{one} {other}");
        }
        let long = "x".repeat(100_000);
        assert!(edit_distance(&long, &format!("{long}y")).abs() < 1e-9, "what is beyond the limit does not count");
    }
}

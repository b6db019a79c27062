//! Opening hours, on the page's wall clock as the host gives it.

use frontdesk_policy_sdk::settings::Errors;
use frontdesk_policy_sdk::types::{LocalTime, Weekday};

use crate::settings::Hours;

const DAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
const MINUTES_A_DAY: u16 = 24 * 60;

pub(crate) fn check(hours: &Hours, errors: &mut Errors) {
    for (day, ranges) in &hours.week {
        if !DAYS.contains(&day.as_str()) {
            let message = format!("`{day}` is not a weekday; write one of {}", DAYS.join(", "));
            errors.push(format!("/hours/week/{day}"), message);
        }
        for (index, range) in ranges.iter().enumerate() {
            if parse(range).is_none() {
                let message =
                    format!("`{range}` is not a time range; write it as 09:00-17:30, the end after the start");
                errors.push(format!("/hours/week/{day}/{index}"), message);
            }
        }
    }
    for (index, date) in hours.holidays.iter().enumerate() {
        if !is_date(date) {
            let message = format!("`{date}` is not a date; write 2026-12-25, or 12-25 for every year");
            errors.push(format!("/hours/holidays/{index}"), message);
        }
    }
}

/// Whether people answer now.
pub(crate) fn is_open(hours: &Hours, now: &LocalTime) -> bool {
    if hours.week.is_empty() && hours.holidays.is_empty() {
        return true;
    }
    let holiday = hours.holidays.iter().any(|date| now.date == *date || now.date.get(5..) == Some(date.as_str()));
    if holiday {
        return false;
    }
    if hours.week.is_empty() {
        return true;
    }
    let ranges = hours.week.get(DAYS[day_index(now.weekday)]);
    ranges
        .into_iter()
        .flatten()
        .filter_map(|range| parse(range))
        .any(|(from, to)| (from..to).contains(&now.minute_of_day))
}

fn day_index(day: Weekday) -> usize {
    match day {
        Weekday::Monday => 0,
        Weekday::Tuesday => 1,
        Weekday::Wednesday => 2,
        Weekday::Thursday => 3,
        Weekday::Friday => 4,
        Weekday::Saturday => 5,
        Weekday::Sunday => 6,
    }
}

/// `09:00-17:30` as minutes since midnight; `24:00` is the end of the day.
fn parse(range: &str) -> Option<(u16, u16)> {
    let (from, to) = range.split_once(['-', '–'])?;
    let minutes = |time: &str| {
        let (hours, minutes) = time.trim().split_once(':')?;
        let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
        (hours <= 24 && minutes < 60).then_some(hours * 60 + minutes).filter(|total| *total <= MINUTES_A_DAY)
    };
    let (from, to) = (minutes(from)?, minutes(to)?);
    (from < to).then_some((from, to))
}

fn is_date(date: &str) -> bool {
    let month_day = match date.len() {
        5 => date,
        10 if date.as_bytes()[4] == b'-' && date.as_bytes()[..4].iter().all(u8::is_ascii_digit) => &date[5..],
        _ => return false,
    };
    let Some((month, day)) = month_day.split_once('-') else { return false };
    let (Ok(month), Ok(day)) = (month.parse::<u8>(), day.parse::<u8>()) else { return false };
    (1..=12).contains(&month) && (1..=31).contains(&day)
}

//! Times as the API writes them.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `2026-11-23T18:04:52.123Z`, which pydantic reads as a datetime.
pub(crate) fn iso(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    let days = since.as_secs() / 86_400;
    let rest = since.as_secs() % 86_400;
    let (year, month, day) = civil_from_days(days);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    // By hand: a listing of a hundred thousand files has as many of them.
    let mut text = String::with_capacity(24);
    let parts =
        [(year, 4, '-'), (month, 2, '-'), (day, 2, 'T'), (hour, 2, ':'), (minute, 2, ':'), (second, 2, '.')];
    for (value, digits, end) in parts {
        push_digits(&mut text, value, digits);
        text.push(end);
    }
    push_digits(&mut text, u64::from(since.subsec_millis()), 3);
    text.push('Z');
    text
}

/// At least `digits` decimal digits.
fn push_digits(text: &mut String, value: u64, digits: u32) {
    if value >= 10 || digits > 1 {
        push_digits(text, value / 10, digits.saturating_sub(1));
    }
    text.push(char::from(b"0123456789"[usize::try_from(value % 10).unwrap_or(0)]));
}

/// Milliseconds since 1970, as the Node.js routes count.
pub(crate) fn millis(time: SystemTime) -> u64 {
    u64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_millis()).unwrap_or(u64::MAX)
}

/// Howard Hinnant's `civil_from_days` for days since 1970-01-01.
fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_instants_are_written_right() {
        for (seconds, expect) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (253_402_300_800, "10000-01-01T00:00:00.000Z"),
            (951_782_400, "2000-02-29T00:00:00.000Z"),
            (1_795_457_092, "2026-11-23T18:04:52.000Z"),
        ] {
            assert_eq!(iso(UNIX_EPOCH + Duration::from_secs(seconds)), expect);
        }
    }
}

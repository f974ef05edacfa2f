//! The timestamp of a message.

use alloc::borrow::ToOwned;
use alloc::string::String;

use chrono::{DateTime, Datelike, Timelike};

/// Formats a time since the Unix epoch in the form of Python's
/// `datetime.utcnow().isoformat()`: UTC with microseconds, and without a fraction if it
/// is zero.
pub fn timestamp(seconds: u64, nanoseconds: u32) -> String {
    let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
    let time = DateTime::from_timestamp(seconds, nanoseconds)
        .unwrap_or(DateTime::UNIX_EPOCH)
        .naive_utc();
    let mut text = *b"0000-00-00T00:00:00.000000";
    // No clock shows a year of five digits.
    put_digits(&mut text[0..4], time.year().unsigned_abs().into());
    put_digits(&mut text[5..7], time.month().into());
    put_digits(&mut text[8..10], time.day().into());
    put_digits(&mut text[11..13], time.hour().into());
    put_digits(&mut text[14..16], time.minute().into());
    put_digits(&mut text[17..19], time.second().into());
    // chrono represents a leap second by more nanoseconds than a second has.
    let microseconds = time.nanosecond() / 1000 % 1_000_000;
    put_digits(&mut text[20..], microseconds.into());
    let length = if microseconds == 0 { 19 } else { text.len() };
    let text = str::from_utf8(&text[..length]).expect("a timestamp is ASCII");
    text.to_owned()
}

/// Writes the last digits of a number, as many as fit.
fn put_digits(text: &mut [u8], number: u64) {
    let mut rest = number;
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_those_of_python() {
        for (seconds, nanoseconds, expected) in [
            (0, 0, "1970-01-01T00:00:00"),
            (1_705_314_600, 0, "2024-01-15T10:30:00"),
            (1_705_314_600, 999, "2024-01-15T10:30:00"),
            (1_705_314_600, 250_000_000, "2024-01-15T10:30:00.250000"),
            (1_705_314_600, 1_999, "2024-01-15T10:30:00.000001"),
            (u64::MAX, 0, "1970-01-01T00:00:00"),
        ] {
            assert_eq!(timestamp(seconds, nanoseconds), expected);
        }
    }
}

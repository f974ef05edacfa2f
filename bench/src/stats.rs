//! Medians, and ratios with their spread.

use std::fmt;

/// The middle of some values, and the least and the greatest of them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// The one in the middle, or the mean of the two there.
    pub median: f64,
    /// The least.
    pub least: f64,
    /// The greatest.
    pub greatest: f64,
}

impl Spread {
    /// None if there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Some(Spread {
            median: middle(&values)?,
            least: *values.first()?,
            greatest: *values.last()?,
        })
    }

    /// Of the ratios of values that were measured in the same round.
    pub fn of_ratios(values: &[f64], to: &[f64]) -> Option<Spread> {
        Spread::of(values.iter().zip(to).map(|(value, to)| value / to))
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Spread {
            median,
            least,
            greatest,
        } = self;
        write!(f, "{median:.2} ({least:.2}–{greatest:.2})")
    }
}

/// The median; none of no values.
pub fn median(values: &[f64]) -> Option<f64> {
    Spread::of(values.iter().copied()).map(|spread| spread.median)
}

fn middle(sorted: &[f64]) -> Option<f64> {
    let half = sorted.len() / 2;
    let upper = *sorted.get(half)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(half - 1)?, upper))
}

/// A time in the unit in which it is read best.
pub fn shown_time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.0} ns"),
        ..1e6 => format!("{} µs", three_digits(nanoseconds / 1e3)),
        ..1e9 => format!("{} ms", three_digits(nanoseconds / 1e6)),
        _ => format!("{} s", three_digits(nanoseconds / 1e9)),
    }
}

/// A number of bytes, as [`shown_time`].
pub fn shown_bytes(bytes: f64) -> String {
    match bytes {
        ..1e3 => format!("{bytes:.0} B"),
        ..1e6 => format!("{} KB", three_digits(bytes / 1e3)),
        _ => format!("{} MB", three_digits(bytes / 1e6)),
    }
}

/// A number with a comma at every third digit.
pub fn shown_count(count: usize) -> String {
    let digits = count.to_string();
    let mut shown = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// Operations a second.
pub fn shown_rate(rate: f64) -> String {
    match rate {
        ..100.0 => three_digits(rate),
        _ => shown_count(rate.round() as usize),
    }
}

fn three_digits(number: f64) -> String {
    let decimals = match number {
        ..9.995 => 2,
        ..99.95 => 1,
        _ => 0,
    };
    let text = format!("{number:.decimals$}");
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 2.0, 9.0], Some(3.0)),
        ] {
            assert_eq!(median(values), expected);
        }
    }

    #[test]
    fn ratios_are_those_of_a_round() {
        let spread = Spread::of_ratios(&[10.0, 40.0, 30.0], &[10.0, 20.0, 20.0]);
        let expected = Spread {
            median: 1.5,
            least: 1.0,
            greatest: 2.0,
        };
        assert_eq!(spread, Some(expected));
        assert_eq!(expected.to_string(), "1.50 (1.00–2.00)");
    }

    #[test]
    fn numbers_have_units() {
        for (nanoseconds, expected) in [
            (999.0, "999 ns"),
            (1_234.0, "1.23 µs"),
            (24_160.0, "24.2 µs"),
            (999_400.0, "999 µs"),
            (2_000_000.0, "2 ms"),
            (1.5e9, "1.5 s"),
        ] {
            assert_eq!(shown_time(nanoseconds), expected);
        }
        for (bytes, expected) in [
            (100.0, "100 B"),
            (10_000.0, "10 KB"),
            (4_312_000.0, "4.31 MB"),
        ] {
            assert_eq!(shown_bytes(bytes), expected);
        }
        for (rate, expected) in [(0.42, "0.42"), (7.5, "7.5"), (40_123.4, "40,123")] {
            assert_eq!(shown_rate(rate), expected);
        }
        for (count, expected) in [(1, "1"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(shown_count(count), expected);
        }
    }
}

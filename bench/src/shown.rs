//! Formats numbers for readers: three digits and a unit.

/// Formats a time in a suitable unit.
pub fn shown_time(nanoseconds: f64) -> String {
    match nanoseconds {
        ..1e3 => format!("{nanoseconds:.0} ns"),
        ..1e6 => format!("{} µs", three_digits(nanoseconds / 1e3)),
        ..1e9 => format!("{} ms", three_digits(nanoseconds / 1e6)),
        _ => format!("{} s", three_digits(nanoseconds / 1e9)),
    }
}

/// Formats a number of bytes in a suitable unit.
pub fn shown_bytes(bytes: f64) -> String {
    match bytes {
        ..1e3 => format!("{bytes:.0} B"),
        ..1e6 => format!("{} KB", three_digits(bytes / 1e3)),
        _ => format!("{} MB", three_digits(bytes / 1e6)),
    }
}

/// Formats a count with a comma at every third digit.
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

/// Formats a number of operations a second.
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

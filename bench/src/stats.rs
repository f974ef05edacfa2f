//! Medians with their 95 % intervals. `cargo xtask bench --against` compiles this file too.

use std::fmt;

/// A median with its 95 % interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Estimate {
    /// The median.
    pub median: f64,
    /// The lower end of the interval.
    pub low: f64,
    /// The upper end of the interval.
    pub high: f64,
}

impl Estimate {
    /// Computes the median, and its interval by resampling (bootstrap). Returns `None` if
    /// there are no values.
    pub fn of(values: &[f64]) -> Option<Estimate> {
        // A fixed seed, so that the same values have the same interval.
        let mut rng = fastrand::Rng::with_seed(0);
        let mut medians: Vec<f64> = (0..SAMPLES)
            .map_while(|_| median(values.iter().map(|_| values[rng.usize(..values.len())])))
            .collect();
        medians.sort_by(f64::total_cmp);
        Some(Estimate {
            median: median(values.iter().copied())?,
            low: *medians.get(SAMPLES / 40)?,
            high: *medians.get(SAMPLES - 1 - SAMPLES / 40)?,
        })
    }

    /// Whether half the width of the interval is at most this fraction of the median.
    pub fn is_within(self, part: f64) -> bool {
        self.high - self.low <= 2.0 * part * self.median
    }
}

/// Formats with two decimals, or with the given precision. A `*` marks an interval that is
/// too wide to tell a difference of 3 %.
impl fmt::Display for Estimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Estimate { median, low, high } = self;
        let decimals = f.precision().unwrap_or(2);
        write!(
            f,
            "{median:.decimals$} ({low:.decimals$}–{high:.decimals$})"
        )?;
        match self.is_within(TELLING) {
            true => Ok(()),
            false => f.write_str(" *"),
        }
    }
}

/// Returns the median: the value in the middle, or the mean of the two values there.
/// `None` if there are no values.
pub fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    match values.len() % 2 {
        1 => Some(upper),
        _ => Some(f64::midpoint(values[half - 1], upper)),
    }
}

/// The half width of an interval that tells a difference of 3 %, as a fraction of the
/// median.
pub const TELLING: f64 = 0.03;
/// The number of resamples of the bootstrap.
const SAMPLES: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_value_in_the_middle() {
        for (values, expected) in [
            (&[][..], None),
            (&[3.0], Some(3.0)),
            (&[9.0, 1.0, 2.0], Some(2.0)),
            (&[4.0, 1.0, 2.0, 9.0], Some(3.0)),
        ] {
            assert_eq!(median(values.iter().copied()), expected);
        }
    }

    #[test]
    fn the_interval_includes_the_median_and_shrinks_with_more_values() {
        let estimate = |count: u32| {
            let values: Vec<f64> = (0..count)
                .map(|n| 1.0 + f64::from(n % 11) / 100.0)
                .collect();
            Estimate::of(&values).expect("there are values")
        };
        let (few, many) = (estimate(22), estimate(1100));
        assert!(few.low <= 1.05 && 1.05 <= few.high, "{few}");
        assert!(many.high - many.low < few.high - few.low, "{few} {many}");
        assert_eq!(Estimate::of(&[]), None);
    }

    #[test]
    fn an_interval_that_is_too_wide_is_marked() {
        let estimate = |low, high| Estimate {
            median: 2.0,
            low,
            high,
        };
        assert_eq!(estimate(1.95, 2.05).to_string(), "2.00 (1.95–2.05)");
        assert_eq!(
            format!("{:.3}", estimate(1.9, 2.05)),
            "2.000 (1.900–2.050) *"
        );
    }
}

//! Points in time and what lies between them. The page shows them in UTC; the script turns those that say how long
//! something lasts into a running clock.

use askama::Template;

/// Seconds and nanoseconds since the Unix epoch, as the messages carry them.
pub(super) type Stamp = (i64, i32);

#[derive(Debug, Template)]
#[template(path = "moment.html")]
pub(super) struct Moment {
    /// RFC 3339.
    machine: String,
    human: String,
}

impl Moment {
    pub fn new(stamp: Stamp) -> Option<Self> {
        let at = jiff::Timestamp::new(stamp.0, stamp.1).ok()?;
        Some(Self { machine: format!("{at:.3}"), human: at.strftime("%Y-%m-%d %H:%M:%S UTC").to_string() })
    }
}

/// Time between two stamps in words, e.g. `34.9 s` or `2 m 03 s`; empty when the clock went back.
pub(super) fn span(from: Stamp, to: Stamp) -> String {
    let millis = |(seconds, nanos): Stamp| i128::from(seconds) * 1000 + i128::from(nanos) / 1_000_000;
    let lasted = millis(to) - millis(from);
    match lasted {
        ..0 => String::new(),
        0..60_000 => format!("{}.{} s", lasted / 1000, lasted % 1000 / 100),
        60_000..3_600_000 => format!("{} m {:02} s", lasted / 60_000, lasted / 1000 % 60),
        _ => format!("{} h {:02} m", lasted / 3_600_000, lasted / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_well() {
        for (to, text) in [
            ((0, 0), "0.0 s"),
            ((34, 990_000_000), "34.9 s"),
            ((123, 0), "2 m 03 s"),
            ((7_500, 0), "2 h 05 m"),
            ((-1, 0), ""),
        ] {
            assert_eq!(span((0, 0), to), text);
        }
    }

    #[test]
    fn a_moment_out_of_range_is_none() {
        assert!(Moment::new((i64::MAX, 0)).is_none());
        assert_eq!(Moment::new((0, 0)).unwrap().human, "1970-01-01 00:00:00 UTC");
    }
}

//! Maintenance windows: when running plugins of a group may be changed.
//!
//! A window is a weekly span: `Mon-Fri 22:00-04:00`, `Sat,Sun 00:00-24:00`, `daily 01:30-05:00 +02:00`. A span whose end
//! is not after its begin reaches into the next day. The offset from UTC is fixed: there is no daylight saving in it, so
//! that every member computes the same without a table of time zones.

use std::fmt;
use std::str::FromStr;

use kctl_shared::fault::Fault;
use kctl_shared::time::Timestamp;
use serde::{Deserialize, Serialize};

const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
const DAY: i64 = 24 * 60;
const WEEK: i64 = 7 * DAY;
const MINUTE_MS: i64 = 60_000;
/// Monday 1970-01-05 00:00 UTC, in minutes: weeks are counted from there.
const FIRST_MONDAY: i64 = 4 * DAY;
/// Furthest offsets in use on Earth are -12:00 and +14:00.
const MAX_OFFSET: i64 = 14 * 60;

/// A weekly span.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Window {
    /// Days on which it begins, bit 0 is Monday.
    days: u8,
    /// Begin, in minutes of the day.
    from: u16,
    /// How long, 1 to 1440.
    minutes: u16,
    /// Of local time from UTC.
    offset_minutes: i16,
}

impl Window {
    /// Minutes of the week, UTC, at which it opens: below 0 or above a week where the offset moves it over its ends.
    fn opens(&self) -> impl Iterator<Item = i64> {
        let (days, from, offset) = (self.days, i64::from(self.from), i64::from(self.offset_minutes));
        (0..7).filter(move |day| days & (1 << day) != 0).map(move |day| day * DAY + from - offset)
    }

    /// How long it is open still, in minutes; `None` when it is closed.
    fn left(&self, minute: i64) -> Option<i64> {
        let minutes = i64::from(self.minutes);
        let into = self.opens().map(|open| (minute - open).rem_euclid(WEEK));
        into.filter(|into| *into < minutes).map(|into| minutes - into).max()
    }

    /// Minutes until it opens next.
    fn opens_in(&self, minute: i64) -> i64 {
        self.opens().map(|open| (open - minute).rem_euclid(WEEK)).min().unwrap_or(WEEK)
    }
}

fn minute_of(now: Timestamp) -> i64 {
    let minutes = i64::try_from(now.0).unwrap_or(i64::MAX) / MINUTE_MS;
    (minutes - FIRST_MONDAY).rem_euclid(WEEK)
}

/// Whether running plugins may be changed now; without any window always.
pub fn is_open(windows: &[Window], now: Timestamp) -> bool {
    windows.is_empty() || windows.iter().any(|w| w.left(minute_of(now)).is_some())
}

/// When the next window opens; `None` while one is open, or where there is none.
pub fn opens_at(windows: &[Window], now: Timestamp) -> Option<Timestamp> {
    if is_open(windows, now) {
        return None;
    }
    let minutes = windows.iter().map(|w| w.opens_in(minute_of(now))).min()?;
    let whole = now.0 - now.0 % MINUTE_MS.unsigned_abs();
    Some(Timestamp(whole + u64::try_from(minutes * MINUTE_MS).unwrap_or_default()))
}

fn invalid(text: &str) -> Fault {
    Fault::new("WINDOW_INVALID", format!("{text:?} is not a maintenance window"))
        .hint("days, begin and end, and an offset from UTC if there is one: \"Mon-Fri 22:00-04:00\", \"Sat,Sun 00:00-24:00\", \"daily 01:30-05:00 +02:00\"")
}

impl FromStr for Window {
    type Err = Fault;

    fn from_str(text: &str) -> Result<Self, Fault> {
        let parse = || {
            let mut words = text.split_whitespace();
            let (days, span) = (words.next()?, words.next()?);
            let offset_minutes = words.next().map_or(Some(0), offset)?;
            let (from, to) = span.split_once('-')?;
            let (from, to) = (clock(from)?, clock(to)?);
            if words.next().is_some() || from == DAY {
                return None;
            }
            let minutes = if to > from { to - from } else { to + DAY - from };
            Some(Self {
                days: parse_days(days)?,
                from: u16::try_from(from).ok()?,
                minutes: u16::try_from(minutes).ok()?,
                offset_minutes: i16::try_from(offset_minutes).ok()?,
            })
        };
        parse().ok_or_else(|| invalid(text))
    }
}

/// `HH:MM` in minutes, up to 24:00.
fn clock(text: &str) -> Option<i64> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |t: &str| (t.len() == 2).then(|| t.parse::<u8>().ok()).flatten().map(i64::from);
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (minutes < 60 && hours * 60 + minutes <= DAY).then_some(hours * 60 + minutes)
}

fn offset(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("utc") || text == "Z" {
        return Some(0);
    }
    let sign = if text.starts_with('-') { -1 } else { 1 };
    let minutes = clock(text.strip_prefix(['+', '-'])?)?;
    (minutes <= MAX_OFFSET).then_some(sign * minutes)
}

fn parse_days(text: &str) -> Option<u8> {
    if text.eq_ignore_ascii_case("daily") {
        return Some(0x7f);
    }
    let day = |t: &str| DAYS.iter().position(|d| d.eq_ignore_ascii_case(t));
    let mut days = 0;
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // Fri-Mon goes over the end of the week.
        (0..=(last + 7 - first) % 7).for_each(|n| days |= 1 << ((first + n) % 7));
    }
    Some(days)
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named = || DAYS.iter().enumerate().filter(|(n, _)| self.days & (1 << n) != 0).map(|(_, d)| *d);
        let days = if self.days == 0x7f { "daily".to_owned() } else { named().collect::<Vec<_>>().join(",") };
        let to = self.from + self.minutes;
        let to = if i64::from(to) > DAY { to - 1440 } else { to };
        write!(f, "{days} {:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, to / 60, to % 60)?;
        match self.offset_minutes {
            0 => write!(f, " UTC"),
            m => {
                let sign = if m < 0 { '-' } else { '+' };
                write!(f, " {sign}{:02}:{:02}", m.abs() / 60, m.abs() % 60)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Saturday 2026-11-21 00:00 UTC.
    const SATURDAY: u64 = 1_795_219_200_000;

    fn at(hours: i64, minutes: i64) -> Timestamp {
        Timestamp((i64::try_from(SATURDAY).unwrap() + (hours * 60 + minutes) * MINUTE_MS).unsigned_abs())
    }

    fn window(text: &str) -> Window {
        text.parse().unwrap()
    }

    #[test]
    fn windows_open_and_close() {
        let open = |text: &str, hours, minutes| is_open(&[window(text)], at(hours, minutes));
        assert!(open("Sat 00:00-24:00", 0, 0) && open("Sat 00:00-24:00", 23, 59));
        assert!(!open("Sat 00:00-24:00", 24, 0) && !open("Sat 00:00-24:00", -1, 0));
        // Begins on Friday and reaches into Saturday.
        assert!(open("Mon-Fri 22:00-04:00", 3, 59) && !open("Mon-Fri 22:00-04:00", 4, 0));
        assert!(!open("Mon-Fri 22:00-04:00", 22, 0), "Saturday evening is not in it");
        assert!(open("daily 02:00-03:00 +02:00", 0, 30) && !open("daily 02:00-03:00 +02:00", 2, 30));
        assert!(open("Sun 23:00-01:00 -03:00", 24 + 26, 30));
        assert!(is_open(&[], at(5, 0)), "without a window it is always open");
        let two = [window("Sun 10:00-11:00"), window("Sat 09:00-10:00")];
        assert_eq!(opens_at(&two, at(8, 30)), Some(at(9, 0)));
        assert_eq!(opens_at(&two, at(10, 0)), Some(at(34, 0)));
        assert_eq!(opens_at(&two, at(9, 5)), None);
    }

    #[test]
    fn what_is_written_reads_the_same() {
        for text in
            ["Mon,Tue,Wed,Thu,Fri 22:00-04:00 UTC", "daily 01:30-05:00 +02:00", "Sat 00:00-24:00 -11:30"]
        {
            assert_eq!(window(text).to_string(), text);
        }
        assert_eq!(window("fri-mon 01:00-02:00").days, 0b111_0001);
    }

    #[test]
    fn nonsense_is_refused() {
        for bad in [
            "",
            "Mon",
            "Mon 1:00-2:00",
            "Mon 25:00-26:00",
            "Mon 24:00-01:00",
            "Mon 10:60-11:00",
            "Xyz 10:00-11:00",
            "Mon 10:00",
            "Mon 10:00-11:00 +15:00",
            "Mon 10:00-11:00 CET",
            "Mon 10:00-11:00 UTC more",
            "Mon- 10:00-11:00",
            "Mon,, 10:00-11:00",
        ] {
            assert_eq!(bad.parse::<Window>().unwrap_err().code, "WINDOW_INVALID", "{bad:?}");
        }
    }

    #[test]
    fn it_is_open_when_it_opens_and_closed_just_before() {
        let mut dice: u64 = 7;
        let mut roll = |below: u64| {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (dice >> 33) % below
        };
        for _ in 0..20_000 {
            let window = Window {
                days: u8::try_from(1 + roll(127)).unwrap(),
                from: u16::try_from(roll(1440)).unwrap(),
                minutes: u16::try_from(1 + roll(1440)).unwrap(),
                offset_minutes: i16::try_from(roll(1560)).unwrap() - 720,
            };
            assert_eq!(window.to_string().parse::<Window>().unwrap(), window);
            let now = Timestamp(SATURDAY + roll(1_000_000_000));
            if let Some(opens) = opens_at(&[window], now) {
                let before = Timestamp(opens.0 - 1);
                assert!(is_open(&[window], opens) && opens > now, "{window} {now}");
                assert!(!is_open(&[window], before), "{window} {now}");
            }
        }
    }
}

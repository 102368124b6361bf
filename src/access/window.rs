//! The time window of a policy: hours of the day and days of the week by the wall clock of a place. Pure.
//!
//! A window is open exactly while a clock on the wall there shows a time in it. Where clocks are put forward, a window that lies in the
//! hour that is left out does not open that day; where they are put back, one that lies in the hour that comes twice opens twice.

use std::sync::LazyLock;

use jiff::civil::{Time, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Map, Value};
use time::OffsetDateTime;

/// Most entries of `days`.
const DAYS_MAX: usize = 14;
/// Longest name of a time zone, in characters.
const ZONE_CHARS_MAX: usize = 64;

/// The IANA database that is built in: the machine's own may be missing, or older than another daemon's.
static ZONES: LazyLock<TimeZoneDatabase> = LazyLock::new(TimeZoneDatabase::bundled);

/// A daily window, `after` inclusive and `before` exclusive; one that ends before it begins passes midnight and belongs to the day on
/// which it began.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeWindow {
    after: Option<Time>,
    before: Option<Time>,
    /// Seven flags, Monday first; `None` is every day.
    days: Option<[bool; 7]>,
    zone: TimeZone,
}

/// Why a window cannot be taken. The text is a sentence.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// Not a window.
    #[error(
        "conditions.time_window must be an object of after and before (\"HH:MM\", different) and days, at least one of them, and optionally timezone"
    )]
    Form,
    /// Not days of the week.
    #[error(
        "conditions.time_window.days must be a list of days of the week: \"mon\" to \"sun\", \"monday\" to \"sunday\", or numbers from 1 for Monday to 7 (or 0) for Sunday"
    )]
    Days,
    /// Not a time zone.
    #[error(
        "conditions.time_window.timezone \"{0}\" is not known: it must be the name of an IANA time zone such as \"Europe/Berlin\" or \"UTC\""
    )]
    Zone(String),
    /// A member that is not known here. Ignoring it would widen the access.
    #[error("condition \"time_window.{0}\" is not known; known are after, before, timezone and days")]
    Unknown(String),
}

impl TimeWindow {
    /// Reads a window. Members that are `null` are not given.
    ///
    /// # Errors
    /// [`WindowError`].
    pub fn parse(members: &Map<String, Value>) -> Result<Self, WindowError> {
        let mut window = Self { after: None, before: None, days: None, zone: TimeZone::UTC };
        for (name, value) in members.iter().filter(|(_, value)| !value.is_null()) {
            match name.as_str() {
                "after" => window.after = Some(clock_time(value).ok_or(WindowError::Form)?),
                "before" => window.before = Some(clock_time(value).ok_or(WindowError::Form)?),
                "days" => window.days = Some(days(value).ok_or(WindowError::Days)?),
                "timezone" => window.zone = zone(value.as_str().ok_or(WindowError::Form)?)?,
                _ => return Err(WindowError::Unknown(shown(name))),
            }
        }
        let times_say_nothing = window.after == window.before;
        if times_say_nothing && (window.after.is_some() || window.days.is_none()) {
            return Err(WindowError::Form);
        }
        Ok(window)
    }

    /// Whether it is open at that time. A time beyond what calendars know is in no window.
    #[must_use]
    pub fn contains(&self, now: OffsetDateTime) -> bool {
        let Ok(instant) = Timestamp::from_second(now.unix_timestamp()) else { return false };
        let wall = self.zone.to_datetime(instant);
        let (date, time) = (wall.date(), wall.time());
        let began = match (self.after, self.before) {
            // Past midnight, in the window that yesterday began.
            (Some(after), Some(before)) if after > before && time < before => date.checked_sub(1.day()).ok(),
            (Some(after), Some(before)) if after > before => (time >= after).then_some(date),
            (after, before) => {
                let open = after.is_none_or(|after| time >= after) && before.is_none_or(|before| time < before);
                open.then_some(date)
            }
        };
        began.is_some_and(|date| self.days.is_none_or(|days| days[index(date.weekday())]))
    }
}

/// Monday is 0.
fn index(day: Weekday) -> usize {
    usize::from(day.to_monday_zero_offset().unsigned_abs())
}

fn shown(text: &str) -> String {
    text.chars().take(ZONE_CHARS_MAX).collect()
}

fn zone(name: &str) -> Result<TimeZone, WindowError> {
    let refuse = || WindowError::Zone(shown(name));
    if name.eq_ignore_ascii_case("utc") || name == "Z" {
        return Ok(TimeZone::UTC);
    }
    let form = name.len() <= ZONE_CHARS_MAX && name.starts_with(|c: char| c.is_ascii_alphabetic());
    if !form {
        return Err(refuse());
    }
    ZONES.get(name).map_err(|_| refuse())
}

/// `HH:MM`, 24 hours.
fn clock_time(value: &Value) -> Option<Time> {
    let (hour, minute) = value.as_str()?.split_once(':')?;
    let two_digits = |part: &str| part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
    if !two_digits(hour) || !two_digits(minute) {
        return None;
    }
    Time::new(hour.parse().ok()?, minute.parse().ok()?, 0, 0).ok()
}

/// Days by name, or by number as cron counts them: Sunday is 0 and 7.
fn days(value: &Value) -> Option<[bool; 7]> {
    const NAMES: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];
    let list = value.as_array().filter(|list| (1..=DAYS_MAX).contains(&list.len()))?;
    let mut days = [false; 7];
    for entry in list {
        let day = match entry {
            Value::Number(number) => match number.as_u64()? {
                0 => 6,
                n @ 1..=7 => usize::try_from(n).ok()? - 1,
                _ => return None,
            },
            Value::String(text) => {
                let text = text.to_ascii_lowercase();
                NAMES.iter().position(|name| *name == text || name[..3] == text)?
            }
            _ => return None,
        };
        days[day] = true;
    }
    Some(days)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use time::macros::datetime;

    fn window(value: Value) -> TimeWindow {
        TimeWindow::parse(value.as_object().unwrap()).unwrap()
    }

    #[track_caller]
    fn assert_open(window: &TimeWindow, table: &[(OffsetDateTime, bool)]) {
        for (now, open) in table {
            assert_eq!(window.contains(*now), *open, "{now}");
        }
    }

    #[test]
    fn a_time_window_may_pass_midnight() {
        let table = [
            (datetime!(2026-11-21 7:59:59 UTC), false),
            (datetime!(2026-11-21 8:00 UTC), true),
            (datetime!(2026-11-21 19:59:59 UTC), true),
            (datetime!(2026-11-21 20:00 UTC), false),
            (datetime!(2026-11-21 21:00 +2), true),
            (datetime!(2026-11-21 0:00 UTC), false),
        ];
        assert_open(&window(json!({"after": "08:00", "before": "20:00", "timezone": "UTC"})), &table);
        let closed = table.map(|(now, open)| (now, !open));
        assert_open(&window(json!({"after": "20:00", "before": "08:00"})), &closed);
    }

    #[test]
    fn days_are_those_of_the_place_and_of_the_beginning() {
        // The 20th of November 2026 is a Friday.
        let nights = window(json!({"after": "22:00", "before": "06:00", "timezone": "Asia/Tokyo", "days": ["FRI"]}));
        assert_open(
            &nights,
            &[
                (datetime!(2026-11-20 21:59 +9), false),
                (datetime!(2026-11-20 22:00 +9), true),
                (datetime!(2026-11-20 13:00 UTC), true),
                // Saturday's early hours belong to Friday's night, and Friday's to Thursday's.
                (datetime!(2026-11-21 5:59 +9), true),
                (datetime!(2026-11-21 6:00 +9), false),
                (datetime!(2026-11-20 5:59 +9), false),
                (datetime!(2026-11-21 22:00 +9), false),
            ],
        );
        // Friday evening in California is Saturday in UTC.
        let day = window(json!({"days": ["friday"], "timezone": "America/Los_Angeles"}));
        assert_open(
            &day,
            &[
                (datetime!(2026-11-21 7:59 UTC), true),
                (datetime!(2026-11-21 8:00 UTC), false),
                (datetime!(2026-11-20 7:59 UTC), false),
            ],
        );
        for spelled in [json!(["sun"]), json!(["Sunday"]), json!([0]), json!([7])] {
            let sunday = window(json!({"after": "00:00", "days": spelled}));
            assert_open(&sunday, &[(datetime!(2026-11-22 12:00 UTC), true), (datetime!(2026-11-23 12:00 UTC), false)]);
        }
    }

    #[test]
    fn a_window_is_open_while_the_clock_on_the_wall_shows_it() {
        // Berlin: 2026-03-29 02:00 becomes 03:00 (01:00 UTC); 2026-10-25 03:00 becomes 02:00 (01:00 UTC).
        let berlin =
            |after: &str, before: &str| window(json!({"after": after, "before": before, "timezone": "Europe/Berlin"}));
        // The same window is an hour earlier in UTC from one day to the next.
        let day = berlin("09:00", "17:00");
        assert_open(
            &day,
            &[
                (datetime!(2026-03-28 7:30 UTC), false),
                (datetime!(2026-03-29 7:30 UTC), true),
                (datetime!(2026-10-24 15:30 UTC), false),
                (datetime!(2026-10-25 15:30 UTC), true),
            ],
        );
        // Left out: it does not open at all; one that begins there begins after it.
        let gap = berlin("02:15", "02:45");
        for minutes in (0..24 * 60).step_by(5) {
            let now = datetime!(2026-03-28 23:00 UTC) + time::Duration::minutes(minutes);
            assert!(!gap.contains(now), "{now}");
        }
        assert!(gap.contains(datetime!(2026-03-28 1:30 UTC)));
        assert_open(
            &berlin("02:30", "06:00"),
            &[(datetime!(2026-03-29 0:59:59 UTC), false), (datetime!(2026-03-29 1:00 UTC), true)],
        );
        // Twice: it opens twice, and is closed in between.
        assert_open(
            &berlin("02:15", "02:45"),
            &[
                (datetime!(2026-10-25 0:30 UTC), true),
                (datetime!(2026-10-25 0:50 UTC), false),
                (datetime!(2026-10-25 1:10 UTC), false),
                (datetime!(2026-10-25 1:30 UTC), true),
                (datetime!(2026-10-25 1:50 UTC), false),
            ],
        );
        // A zone an hour and three quarters off whole hours.
        let kathmandu = window(json!({"after": "08:00", "before": "08:01", "timezone": "asia/kathmandu"}));
        assert_open(&kathmandu, &[(datetime!(2026-11-21 2:15 UTC), true), (datetime!(2026-11-21 2:16 UTC), false)]);
    }

    #[test]
    fn windows_that_are_not_understood_are_refused() {
        for value in [
            json!({}),
            json!({"timezone": "UTC"}),
            json!({"after": "8:00"}),
            json!({"after": "24:00"}),
            json!({"after": 8}),
            json!({"after": "08:00", "before": "08:00"}),
            json!({"after": "08:00", "before": "08:00", "days": ["mon"]}),
            json!({"after": "08:00", "days": []}),
            json!({"after": "08:00", "days": "mon"}),
            json!({"after": "08:00", "days": ["mo"]}),
            json!({"after": "08:00", "days": [8]}),
            json!({"after": "08:00", "days": [-1]}),
            json!({"after": "08:00", "days": [1.5]}),
            json!({"after": "08:00", "days": ["mon", null]}),
            json!({"after": "08:00", "days": [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]}),
            json!({"after": "08:00", "timezone": "Mars/Base"}),
            json!({"after": "08:00", "timezone": "CET-1CEST"}),
            json!({"after": "08:00", "timezone": "+02:00"}),
            json!({"after": "08:00", "timezone": "../../etc/passwd"}),
            json!({"after": "08:00", "timezone": ""}),
            json!({"after": "08:00", "timezone": 2}),
            json!({"after": "08:00", "cron_expr": "* * * * *"}),
        ] {
            assert!(TimeWindow::parse(value.as_object().unwrap()).is_err(), "{value}");
        }
    }
}

//! Calendar windows: which hour, day, week or month of a budget a time lies in, in a named time zone.
//!
//! Seconds since 1970 in, a numbered `Window` with its start and end out. Windows tile time: one ends where
//! the next begins, and its number is one higher. A day begins at the first instant at which the zone's clock
//! shows `reset_hour` or, where that hour is skipped, at the instant of the skip; so a day has 23, 24 or 25
//! hours. Weeks and months are whole days of that kind. Hours are those of UTC: a zone's clock may repeat
//! half of one. `total` is one window without an end. A clock that is set back gives an earlier window: that
//! a counter does not refill is the caller's business. Limits: years 1970 to 2999; a time outside counts as
//! the nearest within. Zones are those of the tz database that is built in (crate jiff), the same on every
//! machine; the system's are not looked at.

use jiff::Timestamp;
use jiff::civil::{Date, date};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// How long a window is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    /// For ever.
    Total,
}

/// The day that a week begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Weekday {
    #[default]
    Monday,
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
}

/// One window: `start_unix_s <= time < end_unix_s`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// One more than that of the window before.
    pub index: u64,
    pub start_unix_s: i64,
    /// `i64::MAX`: it does not end.
    pub end_unix_s: i64,
}

/// The windows of one period in one zone.
#[derive(Debug)]
pub struct Calendar {
    period: Period,
    zone: TimeZone,
    zone_name: Box<str>,
    reset_hour: i8,
    week_start: Weekday,
    latest: Latest,
}

impl Calendar {
    /// Errors: `zone` is not in the tz database; the hour is above 23.
    pub fn new(period: Period, zone: &str, reset_hour: u8, week_start: Weekday) -> Result<Calendar, Unknown> {
        let found = zones().get(zone).map_err(|_| Unknown::Zone)?;
        let reset_hour = i8::try_from(reset_hour).ok().filter(|hour| *hour < 24).ok_or(Unknown::Hour)?;
        let zone_name = found.iana_name().unwrap_or(zone).into();
        Ok(Calendar { period, zone: found, zone_name, reset_hour, week_start, latest: Latest::default() })
    }

    /// Its period.
    pub fn period(&self) -> Period {
        self.period
    }

    /// The name of its zone, in the database's spelling.
    pub fn zone_name(&self) -> &str {
        &self.zone_name
    }

    /// The window that `unix_s` lies in. A microsecond or two for days, weeks and months.
    pub fn window(&self, unix_s: i64) -> Window {
        let unix_s = unix_s.clamp(0, LAST_UNIX_S);
        match self.period {
            Period::Total => Window { index: 0, start_unix_s: i64::MIN, end_unix_s: i64::MAX },
            Period::Hour => {
                let hour = unix_s / 3_600;
                let (start_unix_s, end_unix_s) = (hour * 3_600, (hour + 1) * 3_600);
                Window { index: hour.unsigned_abs(), start_unix_s, end_unix_s }
            }
            Period::Day | Period::Week | Period::Month => self.days(self.day_of(unix_s)),
        }
    }

    /// As `window`, for callers that ask often: remembers the last answer and looks anew when `unix_s` lies
    /// outside of it. Threads may share it; none waits.
    pub fn now(&self, unix_s: i64) -> Window {
        if let Some(window) = self.latest.get(unix_s) {
            return window;
        }
        let window = self.window(unix_s);
        self.latest.set(&window);
        window
    }

    /// The window that `day` belongs to.
    fn days(&self, day: Date) -> Window {
        let (index, first, next) = match self.period {
            Period::Week => {
                let week = (days_since_1900(day) + 7 - self.week_start as i64) / 7;
                let first = EPOCH + jiff::Span::new().days(week * 7 - 7 + self.week_start as i64);
                (week, first, first + jiff::Span::new().days(7))
            }
            Period::Month => {
                let first = day.first_of_month();
                let index = i64::from(day.year()) * 12 + i64::from(day.month()) - 1;
                (index, first, first + jiff::Span::new().months(1))
            }
            Period::Day | Period::Hour | Period::Total => (days_since_1900(day), day, next(day)),
        };
        let (start_unix_s, end_unix_s) = (self.start_of(first), self.start_of(next));
        Window { index: index.unsigned_abs(), start_unix_s, end_unix_s }
    }

    /// The day whose window `unix_s` lies in: today's by the clock, or yesterday's before the reset; the
    /// loops settle what a change of the clock at that hour moves.
    fn day_of(&self, unix_s: i64) -> Date {
        let time = Timestamp::from_second(unix_s).unwrap_or(Timestamp::UNIX_EPOCH);
        let mut day = self.zone.to_datetime(time).date();
        while self.start_of(day) > unix_s {
            day = before(day);
        }
        while self.start_of(next(day)) <= unix_s {
            day = next(day);
        }
        day
    }

    /// Where the window of `day` begins: the first of two instants at which the clock shows the hour, the
    /// instant of the change where it shows it never.
    fn start_of(&self, day: Date) -> i64 {
        let reset = day.at(self.reset_hour, 0, 0, 0);
        match self.zone.to_ambiguous_timestamp(reset).compatible() {
            Ok(start) => start.as_second(),
            Err(_) => i64::MAX, // out of jiff's years, which end at 9999
        }
    }
}

/// Why there is no such calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// No zone has this name.
    Zone,
    /// No day has this hour.
    Hour,
}

/// The names of all zones.
pub fn zone_names() -> Vec<String> {
    zones().available().map(|name| name.as_str().to_string()).collect()
}

/// Windows are computed for times before this one, 3000-01-01T00:00:00Z.
const LAST_UNIX_S: i64 = 32_503_680_000 - 1;

/// A Monday.
const EPOCH: Date = date(1900, 1, 1);

fn zones() -> &'static TimeZoneDatabase {
    static ZONES: OnceLock<TimeZoneDatabase> = OnceLock::new();
    ZONES.get_or_init(TimeZoneDatabase::bundled)
}

fn days_since_1900(day: Date) -> i64 {
    day.duration_since(EPOCH).as_hours() / 24
}

/// The day after. The years that are asked for are far from jiff's last.
fn next(day: Date) -> Date {
    day.tomorrow().unwrap_or(day)
}

fn before(day: Date) -> Date {
    day.yesterday().unwrap_or(day)
}

/// The window that was computed last, in two words: number (24 bits) and start (40 bits), number and end.
///
/// A reader may find the words of two windows, since they are written one after the other by any thread.
/// Numbers tell: start and end follow from the number alone, so two words with one number are of one window,
/// whoever wrote them and when. Words that do not match, or a window that the time is not in, are passed over
/// and computed again. No order between the words is needed: nothing else is read on their word.
#[derive(Debug, Default)]
struct Latest {
    start: AtomicU64,
    end: AtomicU64,
}

const NUMBER_SHIFT: u32 = 40;
const TIME_MASK: u64 = (1 << NUMBER_SHIFT) - 1;

// Hours are the highest numbers: nine million of them until 3000, and its seconds are below 2^40.
const _: () = assert!(LAST_UNIX_S / 3_600 < 1 << (64 - NUMBER_SHIFT) && LAST_UNIX_S < TIME_MASK as i64 / 2);

impl Latest {
    fn get(&self, unix_s: i64) -> Option<Window> {
        let (start, end) = (self.start.load(Relaxed), self.end.load(Relaxed));
        let (start_unix_s, end_unix_s) = ((start & TIME_MASK) as i64, (end & TIME_MASK) as i64);
        let is_one = start >> NUMBER_SHIFT == end >> NUMBER_SHIFT;
        let holds = is_one && start_unix_s <= unix_s && unix_s < end_unix_s;
        holds.then_some(Window { index: start >> NUMBER_SHIFT, start_unix_s, end_unix_s })
    }

    fn set(&self, window: &Window) {
        // A window that does not fit is not remembered: the total one, and the first of 1970, which began
        // before.
        let fits = |time: i64| u64::try_from(time).ok().filter(|time| *time <= TIME_MASK);
        let (Some(start), Some(end)) = (fits(window.start_unix_s), fits(window.end_unix_s)) else { return };
        self.start.store(window.index << NUMBER_SHIFT | start, Relaxed);
        self.end.store(window.index << NUMBER_SHIFT | end, Relaxed);
    }
}

#[cfg(test)]
mod tests;

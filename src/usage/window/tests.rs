//! Windows against calendars written by hand, and that they tile time.

use super::{Calendar, LAST_UNIX_S, Period, Unknown, Weekday, Window, zone_names};
use jiff::Timestamp;
use proptest::prelude::*;

fn at(text: &str) -> i64 {
    text.parse::<Timestamp>().unwrap().as_second()
}

fn calendar(period: Period, zone: &str, reset_hour: u8, week_start: Weekday) -> Calendar {
    Calendar::new(period, zone, reset_hour, week_start).unwrap()
}

/// Name; period, zone, reset hour, first day of the week; a time in the window; its start; its hours. In
/// Berlin 02:00 is skipped at 01:00Z on 2026-03-29 and comes twice on 2026-10-25, at 00:00Z and 01:00Z; in
/// Beirut midnight itself is skipped.
const ON_THE_WALL: &str = "
an hour | Hour Europe/Berlin 0 Monday | 2026-03-29T01:30:00Z | 2026-03-29T01:00:00Z | 1
a day | Day UTC 0 Monday | 2026-11-21T12:00:00Z | 2026-11-21T00:00:00Z | 24
a day elsewhere | Day Asia/Kolkata 0 Monday | 2026-11-21T20:00:00Z | 2026-11-21T18:30:00Z | 24
the reset hour | Day UTC 6 Monday | 2026-11-21T05:59:59Z | 2026-11-20T06:00:00Z | 24
spring, Berlin | Day Europe/Berlin 0 Monday | 2026-03-29T12:00:00Z | 2026-03-28T23:00:00Z | 23
autumn, Berlin | Day Europe/Berlin 0 Monday | 2026-10-25T12:00:00Z | 2026-10-24T22:00:00Z | 25
spring, New York | Day America/New_York 0 Monday | 2026-03-08T12:00:00Z | 2026-03-08T05:00:00Z | 23
autumn, New York | Day America/New_York 0 Monday | 2026-11-01T12:00:00Z | 2026-11-01T04:00:00Z | 25
a reset that is skipped | Day Europe/Berlin 2 Monday | 2026-03-29T01:00:00Z | 2026-03-29T01:00:00Z | 23
before it | Day Europe/Berlin 2 Monday | 2026-03-29T00:59:59Z | 2026-03-28T01:00:00Z | 24
a reset that repeats | Day Europe/Berlin 2 Monday | 2026-10-25T01:30:00Z | 2026-10-25T00:00:00Z | 25
before that | Day Europe/Berlin 2 Monday | 2026-10-24T23:59:59Z | 2026-10-24T00:00:00Z | 24
no midnight | Day Asia/Beirut 0 Monday | 2025-03-29T22:00:00Z | 2025-03-29T22:00:00Z | 23
a week | Week UTC 0 Monday | 2026-11-21T00:00:00Z | 2026-11-16T00:00:00Z | 168
from Sunday | Week UTC 0 Sunday | 2026-11-21T00:00:00Z | 2026-11-15T00:00:00Z | 168
from Saturday | Week UTC 0 Saturday | 2026-11-21T00:00:00Z | 2026-11-21T00:00:00Z | 168
a week of the change | Week Europe/Berlin 5 Sunday | 2026-03-29T02:59:59Z | 2026-03-22T04:00:00Z | 167
a leap month | Month UTC 0 Monday | 2028-02-29T23:59:59Z | 2028-02-01T00:00:00Z | 696
a plain one | Month UTC 0 Monday | 2026-02-10T00:00:00Z | 2026-02-01T00:00:00Z | 672
not leap: 2100 | Month UTC 0 Monday | 2100-02-10T00:00:00Z | 2100-02-01T00:00:00Z | 672
before the reset of the first | Month Europe/Berlin 6 Monday | 2027-01-01T04:59:59Z | 2026-12-01T05:00:00Z | 744
March with its change | Month Europe/Berlin 0 Monday | 2026-03-01T00:00:00Z | 2026-02-28T23:00:00Z | 743
";

#[test]
fn a_window_is_what_the_calendar_on_the_wall_says() {
    for row in ON_THE_WALL.trim().lines() {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let [name, calendar, inside, start, hours] = cells[..] else { panic!("{row}") };
        let (calendar, hours) = (written(calendar), hours.parse::<i64>().unwrap());
        let window = calendar.window(at(inside));
        assert_eq!(Timestamp::from_second(window.start_unix_s).unwrap().to_string(), start, "{name}");
        assert_eq!(window.end_unix_s - window.start_unix_s, hours * 3_600, "{name}");
        assert_eq!(calendar.now(at(inside)), window, "{name}");
        assert_eq!(calendar.now(at(inside)), window, "{name}, remembered");
    }
}

fn written(text: &str) -> Calendar {
    let words: Vec<&str> = text.split(' ').collect();
    let [period, zone, hour, day] = words[..] else { panic!("{text}") };
    let periods = [Period::Hour, Period::Day, Period::Week, Period::Month];
    let period = periods.into_iter().find(|known| format!("{known:?}") == period).unwrap();
    let days = [Weekday::Monday, Weekday::Saturday, Weekday::Sunday];
    let day = days.into_iter().find(|known| format!("{known:?}") == day).unwrap();
    calendar(period, zone, hour.parse().unwrap(), day)
}

#[test]
fn the_total_never_ends() {
    let total = calendar(Period::Total, "UTC", 0, Weekday::Monday);
    for time in [i64::MIN, 0, i64::MAX] {
        assert_eq!(total.window(time), Window { index: 0, start_unix_s: i64::MIN, end_unix_s: i64::MAX });
        assert_eq!(total.now(time), total.window(time));
    }
}

#[test]
fn a_time_out_of_the_years_counts_as_the_nearest() {
    for period in [Period::Hour, Period::Day, Period::Week, Period::Month] {
        for zone in ["Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"] {
            let calendar = calendar(period, zone, 0, Weekday::Monday);
            assert_eq!(calendar.now(i64::MIN), calendar.window(0));
            assert_eq!(calendar.now(i64::MAX), calendar.window(LAST_UNIX_S));
        }
    }
}

#[test]
fn a_zone_that_nobody_knows_and_an_hour_that_no_day_has_are_told() {
    let new = |zone, hour| Calendar::new(Period::Day, zone, hour, Weekday::Monday).map(|_| ());
    assert_eq!(new("Europe/Berlin", 23), Ok(()));
    assert_eq!(new("Europe/Berlin", 24), Err(Unknown::Hour));
    assert_eq!(new("Europe/Bonn", 0), Err(Unknown::Zone));
    assert_eq!(new("", 0), Err(Unknown::Zone));
    assert_eq!(calendar(Period::Day, "europe/berlin", 0, Weekday::Monday).zone_name(), "Europe/Berlin");
    let names = zone_names();
    assert!(names.len() > 400 && names.iter().any(|name| name == "America/New_York"), "{}", names.len());
}

#[test]
fn threads_that_share_a_calendar_never_see_half_a_window() {
    let shared = calendar(Period::Hour, "UTC", 0, Weekday::Monday);
    std::thread::scope(|scope| {
        for thread in 0..4_i64 {
            let shared = &shared;
            scope.spawn(move || {
                for step in 0..20_000_i64 {
                    let time = 1_800_000_000 + (step * 7 + thread) % 11 * 3_599;
                    assert_eq!(shared.now(time), shared.window(time));
                }
            });
        }
    });
}

fn calendars() -> impl Strategy<Value = Calendar> {
    let zones = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "Asia/Beirut",
        "America/Havana",
        "Africa/Casablanca",
        "Pacific/Apia",
        "America/St_Johns",
        "Pacific/Chatham",
        "Antarctica/Troll",
        "America/Nuuk",
    ];
    let periods = [Period::Hour, Period::Day, Period::Week, Period::Month];
    let days = [Weekday::Monday, Weekday::Wednesday, Weekday::Saturday, Weekday::Sunday];
    let parts = (prop::sample::select(zones.to_vec()), prop::sample::select(periods.to_vec()), 0..24_u8);
    (parts, prop::sample::select(days.to_vec()))
        .prop_map(|((zone, period, hour), day)| Calendar::new(period, zone, hour, day).unwrap())
}

proptest! {
    #[test]
    fn windows_tile_time_and_are_numbered_one_by_one(
        calendar in calendars(),
        // 2015 to 2090: the zones' rules of today and of lately.
        time in 1_420_070_400..3_786_912_000_i64,
        steps in 1..40_usize,
    ) {
        let mut window = calendar.window(time);
        prop_assert!(window.start_unix_s <= time && time < window.end_unix_s);
        for _ in 0..steps {
            for inside in [window.start_unix_s, window.end_unix_s - 1] {
                prop_assert_eq!(calendar.window(inside), window);
                prop_assert_eq!(calendar.now(inside), window);
            }
            let next = calendar.window(window.end_unix_s);
            prop_assert_eq!(next.start_unix_s, window.end_unix_s);
            prop_assert_eq!(next.index, window.index + 1);
            prop_assert_eq!(calendar.now(window.end_unix_s), next);
            window = next;
        }
    }
}

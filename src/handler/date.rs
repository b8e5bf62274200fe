//! `Date` for answers that have none: ours, and those of a provider that sends none (RFC 9110 section 6.6.1).
//!
//! A reading of the monotonic clock in, the field's value out. The text is written once a second and copied from
//! then on; the wall clock is read with it, so that a step of it shows within a second.

use crate::base::clock::{self, Instant};
use std::cell::Cell;
use std::time::{Duration, UNIX_EPOCH};

/// The name of the field.
pub const DATE: &[u8] = b"date";

/// The value of the field at `now`, a reading that the caller has made shortly before.
pub fn at(now: Instant) -> [u8; LEN] {
    let written = WRITTEN.get();
    if (written.from..written.until).contains(&now) {
        return written.text;
    }
    let unix_ms = clock::unix_ms();
    let left = Duration::from_millis(1000 - unix_ms % 1000);
    let written = Written { from: now, until: now + left, text: text(unix_ms) };
    WRITTEN.set(written);
    written.text
}

/// Every date is as long as any other (`Sun, 06 Nov 1994 08:49:37 GMT`).
const LEN: usize = 29;

#[derive(Clone, Copy)]
struct Written {
    from: Instant,
    until: Instant,
    text: [u8; LEN],
}

fn text(unix_ms: u64) -> [u8; LEN] {
    let text = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(unix_ms));
    // A year of five digits would be cut; the crate panics there already.
    std::array::from_fn(|at| text.as_bytes().get(at).copied().unwrap_or(b' '))
}

thread_local! {
    static WRITTEN: Cell<Written> =
        const { Cell::new(Written { from: Instant(0), until: Instant(0), text: [b' '; LEN] }) };
}

#[cfg(test)]
mod tests {
    use super::{at, text};
    use crate::base::clock::{self, Instant};

    #[test]
    fn the_date_has_the_fixed_form() {
        assert_eq!(&text(784_111_777_000), b"Sun, 06 Nov 1994 08:49:37 GMT");
    }

    #[test]
    fn the_date_is_that_of_the_second_whatever_was_asked_before() {
        let ms = |ms: u64| Instant(ms * 1000);
        clock::go_virtual(ms(0), 784_111_777_300);
        // Milliseconds since the start, second of the date; the last one of another run, whose clock begins anew.
        for (now, second) in [(0, "37"), (699, "37"), (700, "38"), (1699, "38"), (5000, "42"), (100, "37")] {
            clock::set_virtual(ms(now));
            let date = at(ms(now));
            let date = std::str::from_utf8(&date).expect("text");
            assert_eq!(date, format!("Sun, 06 Nov 1994 08:49:{second} GMT"), "after {now} ms");
        }
        clock::go_real();
    }
}

//! Character classes of HTTP/1.1 heads, and the search for the first control character.
//!
//! Limits: none of its own. Errors: none; callers decide.
//! The searches over many bytes at a time are in `simd`.
//! Source: RFC 9110 sections 5.5 (field values), 5.6.2 (tokens), RFC 3986 section 2 (targets).

use super::simd::find_control_or_tab;

/// A `tchar` (RFC 9110 section 5.6.2). `_` has a bit of its own, see `fields::is_lookalike`.
pub(super) const TCHAR: u8 = 1;
pub(super) const UNDERSCORE: u8 = 2;
/// Allowed in a request-target. Wider than RFC 3986, since browsers and SDKs send `[ ] { } | ^` and
/// back-quotes raw in queries (WHATWG URL); still refused: controls, space, `" # < > \` and everything above
/// 0x7e.
pub(super) const TARGET: u8 = 4;
/// Allowed in a host: unreserved characters (RFC 3986 section 2.3). The sub-delims and percent-encoding that
/// a reg-name may hold are refused: no DNS name has them, and a comma there hides a list of hosts.
pub(super) const HOST: u8 = 8;
/// Part of a dot segment, plain or encoded: its absence from a target spares looking for one.
pub(super) const DOT: u8 = 16;

pub(super) static CLASS: [u8; 256] = classes();

const fn classes() -> [u8; 256] {
    let mut table = [0u8; 256];
    let mut byte = 0usize;
    while byte < 128 {
        let b = byte as u8;
        if b.is_ascii_alphanumeric() {
            table[byte] = TCHAR | TARGET | HOST;
        } else if b.is_ascii_graphic() {
            table[byte] = match b {
                b'_' => UNDERSCORE | TARGET | HOST,
                b'-' | b'~' => TCHAR | TARGET | HOST,
                b'.' => TCHAR | TARGET | HOST | DOT,
                b'%' => TCHAR | TARGET | DOT,
                b'!' | b'$' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'`' | b'|' => TCHAR | TARGET,
                b'#' => TCHAR,
                b'"' | b'<' | b'>' | b'\\' => 0,
                _ => TARGET,
            };
        }
        byte += 1;
    }
    table
}

pub(super) fn is_class(byte: u8, class: u8) -> bool {
    CLASS[usize::from(byte)] & class != 0
}

pub(super) fn is_tchar(byte: u8) -> bool {
    is_class(byte, TCHAR | UNDERSCORE)
}

/// `1*tchar`.
pub(super) fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

/// A control character that no field value, reason or extension may hold: all but HTAB (RFC 9110 section
/// 5.5).
pub(super) fn is_control(byte: u8) -> bool {
    (byte < 0x20 && byte != b'\t') || byte == 0x7f
}

/// Offset of the first control character other than HTAB, or the length.
#[inline]
pub(super) fn find_control(bytes: &[u8]) -> usize {
    let mut from = 0;
    loop {
        let at = from + find_control_or_tab(&bytes[from..]);
        if bytes.get(at) != Some(&b'\t') {
            return at;
        }
        from = at + 1;
    }
}

/// The value without optional whitespace (SP, HTAB) around it (RFC 9110 section 5.6.3), as a range. In a line
/// that
/// `lines` let through, nothing but these two is at or below a space.
#[inline(always)]
pub(super) fn trim(bytes: &[u8]) -> std::ops::Range<usize> {
    let (mut start, mut end) = (0, bytes.len());
    while start < end && bytes[start] <= b' ' {
        start += 1;
    }
    while start < end && bytes[end - 1] <= b' ' {
        end -= 1;
    }
    start..end
}

/// The members of a comma-separated list, trimmed; empty members are handed out too.
pub(super) fn members(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(|member| &member[trim(member)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tab_does_not_hide_the_control_behind_it() {
        for (bytes, expected) in [
            (&b""[..], 0),
            (b"abc", 3),
            (b"\t", 1),
            (b"\t\t\r", 2),
            (b"a\tb\tc0123456789012345\t\n", 22),
            (b"0123456789abcde\t\x7f", 16),
        ] {
            assert_eq!(find_control(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn token_characters_are_those_of_rfc_9110() {
        let tchars: Vec<u8> = (0..=255).filter(|&b| is_tchar(b)).collect();
        let expected =
            b"!#$%&'*+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ^_`abcdefghijklmnopqrstuvwxyz|~".as_slice();
        assert_eq!(tchars, expected);
    }
}

//! Character classes of HTTP/1.1 heads, and the search for the first control character.
//!
//! Limits: none of its own. Errors: none; callers decide.
//! Source: RFC 9110 sections 5.5 (field values), 5.6.2 (tokens), RFC 3986 section 2 (targets).

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
                b'-' | b'.' | b'~' => TCHAR | TARGET | HOST,
                b'!' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'^' | b'`' | b'|' => TCHAR | TARGET,
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
///
/// Eight bytes at a step: a head line is some 40 bytes, too short for a wider search to pay for its set-up.
pub(super) fn find_control(bytes: &[u8]) -> usize {
    let (words, _) = bytes.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let hits = control_hits(u64::from_le_bytes(*word));
        if hits != 0 {
            // Only the lowest hit is certain (a borrow can mark bytes above it), and it may be a tab.
            let first = at + (hits.trailing_zeros() / 8) as usize;
            if bytes[first] != b'\t' {
                return first;
            }
            if let Some(further) = word.iter().position(|&b| is_control(b)) {
                return at + further;
            }
        }
        at += 8;
    }
    bytes[at..].iter().position(|&b| is_control(b)).map_or(bytes.len(), |offset| at + offset)
}

/// The high bit of each byte below 0x20 or equal to 0x7f; exact for the lowest such byte.
fn control_hits(word: u64) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;
    let below_space = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7f);
    let is_delete = delete.wrapping_sub(ONES) & !delete;
    (below_space | is_delete) & HIGH
}

/// The value without optional whitespace (SP, HTAB) around it (RFC 9110 section 5.6.3), as a range.
pub(super) fn trim(bytes: &[u8]) -> std::ops::Range<usize> {
    let is_text = |&b: &u8| b != b' ' && b != b'\t';
    let start = bytes.iter().position(is_text).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(is_text).map_or(start, |last| last + 1);
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
    fn control_search_agrees_with_the_naive_one_for_every_byte_at_every_offset() {
        for length in 0..40 {
            let clean = vec![b'a'; length];
            assert_eq!(find_control(&clean), length);
            for at in 0..length {
                for byte in 0..=255u8 {
                    let mut bytes = clean.clone();
                    bytes[at] = byte;
                    let naive = bytes.iter().position(|&b| is_control(b)).unwrap_or(length);
                    assert_eq!(find_control(&bytes), naive, "byte {byte:#x} at {at} of {length}");
                    if at + 1 < length {
                        // A neighbour can be marked by a borrow; a tab must not hide what follows.
                        bytes[at + 1] = 0;
                        let naive = bytes.iter().position(|&b| is_control(b)).unwrap_or(length);
                        assert_eq!(
                            find_control(&bytes),
                            naive,
                            "byte {byte:#x} before NUL at {at} of {length}"
                        );
                    }
                }
            }
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

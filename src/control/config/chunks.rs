//! Cuts a long file of keys into pieces that can be parsed one after the other.
//!
//! The tree of 100,000 keys takes most of a gigabyte for a moment, and more time to fault in than to fill. In: the
//! file's text. Out: ranges of it, cut before lines that say `[[key]]`, where no table can go on that began before.
//! None where that is not certain: a string of several lines, another list or table behind the first key. Whoever
//! parses the pieces has to parse the whole where one of them is no TOML: only that tells what is wrong.

use std::ops::Range;

/// How texts are cut.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Shorter texts stay in one piece.
    pub bytes_min: usize,
    /// Keys of a piece.
    pub keys: usize,
}

impl Default for Size {
    fn default() -> Size {
        Size { bytes_min: 1 << 20, keys: 1_000 }
    }
}

/// The pieces of `text`; the first one ends before the first key.
pub fn split(text: &str, size: Size) -> Option<Vec<Range<usize>>> {
    if text.len() < size.bytes_min || text.contains("\"\"\"") || text.contains("'''") {
        return None;
    }
    let mut pieces: Vec<Range<usize>> = Vec::new();
    let (mut start, mut keys, mut at) = (0, 0, 0);
    for line in text.split_inclusive('\n') {
        let here = at;
        at += line.len();
        let line = line.trim();
        if !line.starts_with('[') {
            continue;
        }
        let header = line.strip_prefix("[[key]]").map(str::trim_start);
        if header.is_some_and(|rest| rest.is_empty() || rest.starts_with('#')) {
            if pieces.is_empty() || keys == size.keys {
                pieces.push(start..here);
                (start, keys) = (here, 0);
            }
            keys += 1;
        } else if !pieces.is_empty() && !line.starts_with("[key.") && !line.starts_with("[[key.") {
            return None;
        }
    }
    if pieces.is_empty() {
        return None;
    }
    pieces.push(start..text.len());
    Some(pieces)
}

#[cfg(test)]
mod tests {
    use super::{Size, split};

    fn pieces(text: &str) -> Option<Vec<&str>> {
        Some(split(text, Size { bytes_min: 0, keys: 2 })?.into_iter().map(|range| &text[range]).collect())
    }

    #[test]
    fn a_piece_begins_with_a_key() {
        let rows: [(&str, Option<&[&str]>); 9] = [
            ("a = 1\n", None),
            ("", None),
            ("a = 1\n[[key]]\nb = 2\n", Some(&["a = 1\n", "[[key]]\nb = 2\n"])),
            (
                "[[key]]\n1\n[[key]] # b\r\n2\n [[key]]\n3",
                Some(&["", "[[key]]\n1\n[[key]] # b\r\n2\n", " [[key]]\n3"]),
            ),
            (
                "[[key]]\n[key.limits]\n[[key.budget]]\n",
                Some(&["", "[[key]]\n[key.limits]\n[[key.budget]]\n"]),
            ),
            ("[[key]]\n[[team]]\n", None),
            ("[[key]]\n[server]\n", None),
            ("[[key]]\nname = \"\"\"\n[[key]]\n\"\"\"\n", None),
            ("x = [\n[[1]],\n]\n[[key]]\n[[2]],\n", None),
        ];
        for (text, expected) in rows {
            assert_eq!(pieces(text).as_deref(), expected, "{text:?}");
        }
        assert_eq!(split("[[key]]\n", Size { bytes_min: 9, keys: 2 }), None, "shorter than what is worth it");
    }
}

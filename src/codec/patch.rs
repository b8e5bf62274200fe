//! Patches: replacements of byte ranges of one buffer, which itself stays as it is.
//!
//! The way to change a body without re-serialising it: collect replacements in any order, then send the
//! pieces (original, replacement, original, …) or copy them into one buffer. An empty list is one piece and
//! no allocation.
//!
//! Errors: a range that overlaps an earlier one is refused; the caller's mistake.
//! Absent: any knowledge of what the bytes are, and the buffer itself: ranges are offsets into it.

use std::ops::Range;

/// Replacements of one buffer's ranges, in order and apart from each other.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patches {
    list: Vec<Patch>,
    /// The replacements' bytes, in the order in which they were inserted.
    bytes: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Patch {
    replaced: Range<usize>,
    /// Range of `Patches::bytes`.
    by: Range<usize>,
}

/// The range overlaps one that is replaced already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overlap {
    pub inserted: Range<usize>,
    pub present: Range<usize>,
}

impl Patches {
    pub const fn new() -> Patches {
        Patches { list: Vec::new(), bytes: Vec::new() }
    }

    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Forgets all patches and keeps the memory.
    pub fn clear(&mut self) {
        self.list.clear();
        self.bytes.clear();
    }

    /// Replaces `range` by `by`. An empty range inserts: before a replaced range that starts there, behind
    /// what was inserted there earlier.
    pub fn replace(&mut self, range: Range<usize>, by: &[u8]) -> Result<(), Overlap> {
        debug_assert!(range.start <= range.end, "a range runs forward");
        let place = self
            .list
            .partition_point(|patch| (patch.replaced.start, patch.replaced.end) <= (range.start, range.end));
        let before = place.checked_sub(1).map(|last| &self.list[last].replaced);
        let after = self.list.get(place).map(|patch| &patch.replaced);
        let meets = |present: &Range<usize>| present.start < range.end && range.start < present.end;
        let same = |present: &Range<usize>| !range.is_empty() && *present == range;
        if let Some(present) =
            [before, after].into_iter().flatten().find(|present| meets(present) || same(present))
        {
            return Err(Overlap { inserted: range, present: present.clone() });
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(by);
        self.list.insert(place, Patch { replaced: range, by: start..self.bytes.len() });
        Ok(())
    }

    /// How long the result is for a buffer of `original_len` bytes.
    pub fn len_after(&self, original_len: usize) -> usize {
        let removed: usize = self.list.iter().map(|patch| patch.replaced.len()).sum();
        original_len + self.bytes.len() - removed
    }

    /// The result as slices of `original` and of the replacements, in order, without empty ones.
    pub fn pieces<'a>(&'a self, original: &'a [u8]) -> Pieces<'a> {
        if let Some(last) = self.list.last() {
            assert!(last.replaced.end <= original.len(), "patches belong to the buffer they were made for");
        }
        Pieces { patches: self, original, next: 0, at: 0 }
    }

    /// Appends the result to `out`.
    pub fn apply(&self, original: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.len_after(original.len()));
        self.pieces(original).for_each(|piece| out.extend_from_slice(piece));
    }
}

/// See [`Patches::pieces`].
#[derive(Debug, Clone)]
pub struct Pieces<'a> {
    patches: &'a Patches,
    original: &'a [u8],
    /// The patch whose replacement comes next.
    next: usize,
    /// Where the original continues.
    at: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        while let Some(patch) = self.patches.list.get(self.next) {
            if self.at < patch.replaced.start {
                let kept = &self.original[self.at..patch.replaced.start];
                self.at = patch.replaced.start;
                return Some(kept);
            }
            self.next += 1;
            self.at = patch.replaced.end;
            if !patch.by.is_empty() {
                return Some(&self.patches.bytes[patch.by.clone()]);
            }
        }
        let rest = &self.original[self.at..];
        self.at = self.original.len();
        (!rest.is_empty()).then_some(rest)
    }
}

impl std::fmt::Display for Overlap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "bytes {:?} overlap {:?}, which are replaced already", self.inserted, self.present)
    }
}

impl std::error::Error for Overlap {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn applied(original: &[u8], patches: &Patches) -> Vec<u8> {
        let mut out = b"kept".to_vec();
        patches.apply(original, &mut out);
        assert_eq!(out.len(), 4 + patches.len_after(original.len()));
        assert_eq!(out[4..], *patches.pieces(original).collect::<Vec<_>>().concat());
        assert!(patches.pieces(original).all(|piece| !piece.is_empty()));
        out.split_off(4)
    }

    #[test]
    fn patches_apply_in_order_however_they_were_inserted() {
        let mut patches = Patches::new();
        patches.replace(4..6, b"XYZ").expect("free");
        patches.replace(0..1, b"").expect("free");
        patches.replace(4..4, b"<").expect("free");
        patches.replace(6..6, b">").expect("free");
        patches.replace(10..10, b"!").expect("free");
        patches.replace(4..4, b"<").expect("free");
        assert_eq!(applied(b"0123456789", &patches), b"123<<XYZ>6789!");
        patches.clear();
        assert!(patches.is_empty());
        assert_eq!(applied(b"0123", &patches), b"0123");
    }

    #[test]
    fn an_empty_list_is_one_piece() {
        let original = b"abc";
        let patches = Patches::new();
        let pieces: Vec<&[u8]> = patches.pieces(original).collect();
        assert_eq!(pieces, [original]);
        assert_eq!(pieces[0].as_ptr(), original.as_ptr());
        assert_eq!(patches.pieces(b"").count(), 0);
    }

    #[test]
    fn overlaps_are_refused_and_neighbours_are_not() {
        let cases: [(Range<usize>, bool); 12] = [
            (4..8, false),
            (5..6, false),
            (0..5, false),
            (7..9, false),
            (0..10, false),
            (5..5, false),
            (4..6, false),
            (0..4, true),
            (8..10, true),
            (4..4, true),
            (8..8, true),
            (3..3, true),
        ];
        for (range, is_free) in cases {
            let mut patches = Patches::new();
            patches.replace(4..8, b"x").expect("free");
            let before = patches.clone();
            let result = patches.replace(range.clone(), b"y");
            assert_eq!(result.is_ok(), is_free, "{range:?}");
            if let Err(overlap) = result {
                assert_eq!(overlap, Overlap { inserted: range, present: 4..8 });
                assert_eq!(patches, before, "a refused patch leaves no trace");
            }
        }
        // Around a place where something was inserted nothing can be replaced as one.
        let mut patches = Patches::new();
        patches.replace(5..5, b"x").expect("free");
        assert!(patches.replace(4..6, b"").is_err());
        assert!(patches.replace(0..5, b"").is_ok());
        assert!(patches.replace(5..9, b"").is_ok());
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Against the plain way: every patch that was let in, from the last to the first, into a copy.
        #[test]
        fn pieces_are_what_splicing_gives(
            original in prop::collection::vec(any::<u8>(), 0..40),
            edits in prop::collection::vec(
                (0usize..40, 0usize..6, prop::collection::vec(any::<u8>(), 0..4)),
                0..12,
            ),
        ) {
            let mut patches = Patches::new();
            let mut let_in = Vec::new();
            for (start, len, by) in edits {
                let range = start.min(original.len())..(start + len).min(original.len());
                let clashes = |other: &Range<usize>| {
                    let meets = other.start < range.end && range.start < other.end;
                    meets || (!range.is_empty() && *other == range)
                };
                let is_free = !let_in.iter().any(|(other, _)| clashes(other));
                prop_assert_eq!(patches.replace(range.clone(), &by).is_ok(), is_free);
                if is_free {
                    let_in.push((range, by));
                }
            }
            let_in.sort_by_key(|(range, _)| (range.start, range.end));
            let mut expected = original.clone();
            for (range, by) in let_in.into_iter().rev() {
                expected.splice(range, by);
            }
            prop_assert_eq!(applied(&original, &patches), expected);
        }
    }
}

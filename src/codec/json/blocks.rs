//! Sixty-four bytes at a time: bit masks of the bytes that mean something to JSON, bit n for byte n.
//!
//! On x86-64 with SSE2, which every such processor has: no dispatch at run time, and it is inlined wherever
//! it is used. Elsewhere eight bytes at a time in a `u64`; a test holds both against the definition.

use memchr::memchr2;

/// Bytes per block.
const BLOCK: usize = 64;

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Masks {
    quotes: u64,
    backslashes: u64,
    /// What else the reader looks for.
    others: u64,
}

/// What a cursor looks for beside quotes and backslashes.
pub(super) const BRACKETS: u8 = 0;
/// Bytes below 0x20, which no string may hold.
pub(super) const CONTROLS: u8 = 1;

/// Where strings end and brackets stand, for one forward pass: the masks of the block under way.
#[derive(Debug, Clone)]
pub(super) struct Cursor<'a, const OTHERS: u8> {
    bytes: &'a [u8],
    /// Where the block begins. It covers `start..start + BLOCK`, what lies behind the document's end as
    /// spaces.
    start: usize,
    /// Quotes that are not escaped.
    quotes: u64,
    /// Backslashes that begin an escape.
    escapes: u64,
    /// `OTHERS`: brackets or control bytes.
    others: u64,
    /// The first byte behind the block is escaped.
    carry: bool,
}

/// The blocks of a string without quote, backslash and control byte after which `memchr` takes over: it is
/// three times as fast on base64, and a call of it costs as much as two blocks.
const PLAIN_BLOCKS: u32 = 4;

impl<'a, const OTHERS: u8> Cursor<'a, OTHERS> {
    pub fn new(bytes: &'a [u8]) -> Self {
        let mut cursor = Cursor { bytes, start: 0, quotes: 0, escapes: 0, others: 0, carry: false };
        cursor.load(0);
        cursor
    }

    /// Finds the quote that ends the string whose inside begins at `from`, not before an earlier call's.
    /// `each` sees what is remarkable on the way.
    #[inline]
    pub fn string_end<E>(
        &mut self,
        from: usize,
        mut each: impl FnMut(Inside<'a>) -> Result<(), E>,
    ) -> Result<Option<usize>, E> {
        self.enter(from);
        let mut live = u64::MAX << (from - self.start);
        let mut plain_blocks = 0;
        loop {
            let quotes = self.quotes & live;
            // All bits below the lowest quote; all where there is none.
            let inside = live & (quotes & quotes.wrapping_neg()).wrapping_sub(1);
            let escapes = self.escapes & inside;
            each(Inside::Block { start: self.start, escapes, others: self.others & inside })?;
            if quotes != 0 {
                return Ok(Some(self.start + quotes.trailing_zeros() as usize));
            }
            plain_blocks = if escapes == 0 { plain_blocks + 1 } else { 0 };
            let mut next = self.start + BLOCK;
            if plain_blocks > PLAIN_BLOCKS && !self.carry {
                let rest = self.bytes.get(next..).unwrap_or_default();
                let run = memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                each(Inside::Run(&rest[..run], next))?;
                next += run;
            }
            if next >= self.bytes.len() {
                return Ok(None);
            }
            self.load(next);
            live = u64::MAX;
        }
    }

    /// The first quote or bracket at `from` or behind it, `from` being outside of strings.
    #[inline]
    pub fn quote_or_bracket(&mut self, from: usize) -> Option<usize> {
        self.enter(from);
        let mut live = u64::MAX << (from - self.start);
        loop {
            let found = (self.quotes | self.others) & live;
            if found != 0 {
                return Some(self.start + found.trailing_zeros() as usize);
            }
            let next = self.start + BLOCK;
            if next >= self.bytes.len() {
                return None;
            }
            self.load(next);
            live = u64::MAX;
        }
    }

    /// Makes the block hold `at`, which no escape reaches into.
    #[inline]
    fn enter(&mut self, at: usize) {
        debug_assert!(self.start <= at, "the cursor moves forward only");
        if at - self.start >= BLOCK {
            self.carry = false;
            self.load(at);
        }
    }

    #[inline]
    fn load(&mut self, at: usize) {
        let masks = masks_at::<OTHERS>(self.bytes, at);
        let (escapes, escaped) = split_backslashes(masks.backslashes, &mut self.carry);
        self.start = at;
        self.quotes = masks.quotes & !escaped;
        self.escapes = escapes;
        self.others = masks.others;
    }
}

/// A part of a string's inside.
#[derive(Debug, Clone, Copy)]
pub(super) enum Inside<'a> {
    /// Escapes and `OTHERS` of the block that begins at `start`.
    Block { start: usize, escapes: u64, others: u64 },
    /// Bytes without quote and backslash, not looked at for anything else, and their offset.
    Run(&'a [u8], usize),
}

/// Offsets of the bytes that a string can only hold escaped: quotes, backslashes and control bytes.
pub(super) fn to_escape(bytes: &[u8]) -> impl Iterator<Item = usize> {
    blocks(bytes).flat_map(|start| {
        let masks = masks_at::<CONTROLS>(bytes, start);
        places(start, masks.quotes | masks.backslashes | masks.others)
    })
}

/// Offsets of the backslashes that begin an escape, in the inside of a string.
pub(super) fn escapes(bytes: &[u8]) -> impl Iterator<Item = usize> {
    let mut carry = false;
    blocks(bytes).flat_map(move |start| {
        let masks = masks_at::<CONTROLS>(bytes, start);
        places(start, split_backslashes(masks.backslashes, &mut carry).0)
    })
}

fn blocks(bytes: &[u8]) -> impl Iterator<Item = usize> {
    (0..bytes.len()).step_by(BLOCK)
}

/// The bits of `mask` as offsets from `start`.
fn places(start: usize, mask: u64) -> impl Iterator<Item = usize> {
    let mut left = mask;
    std::iter::from_fn(move || {
        let place = left.trailing_zeros() as usize;
        left &= left.checked_sub(1)?;
        Some(start + place)
    })
}

/// The masks of the block at `at`; spaces stand for what lies behind the end.
#[inline]
fn masks_at<const OTHERS: u8>(bytes: &[u8], at: usize) -> Masks {
    let rest = bytes.get(at..).unwrap_or_default();
    match rest.first_chunk() {
        Some(block) => masks::<OTHERS>(block),
        None => {
            let mut block = [b' '; BLOCK];
            block[..rest.len()].copy_from_slice(rest);
            masks::<OTHERS>(&block)
        }
    }
}

/// Splits backslashes into those that begin an escape and, as the second mask, the bytes that they escape.
/// `carry`: the block before ended in the first byte of an escape; set anew for the block behind.
#[inline]
fn split_backslashes(backslashes: u64, carry: &mut bool) -> (u64, u64) {
    let carried = u64::from(*carry);
    // In a run of backslashes every second one is escaped. Adding a run's first bit to the run carries
    // through it: where the carry comes out tells whether the run, begun on an odd position, has an even or
    // odd length.
    // Without a branch: whether a block holds a backslash is a coin toss in much of what is written.
    let backslashes = backslashes & !carried;
    let follows = backslashes << 1 | carried;
    const EVEN: u64 = 0x5555_5555_5555_5555;
    let odd_starts = backslashes & !EVEN & !follows;
    let (ends_of_odd_starts, overflow) = odd_starts.overflowing_add(backslashes);
    *carry = overflow;
    let escaped = (EVEN ^ (ends_of_odd_starts << 1)) & follows;
    (backslashes & !escaped, escaped)
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[inline]
fn masks<const OTHERS: u8>(block: &[u8; BLOCK]) -> Masks {
    // SAFETY: compiled only where the whole build may use SSE2, and nothing else is asked for.
    #[allow(unsafe_code)]
    unsafe {
        masks_sse2::<OTHERS>(block)
    }
}

#[cfg(all(target_arch = "x86_64", target_feature = "sse2"))]
#[target_feature(enable = "sse2")]
#[inline]
fn masks_sse2<const OTHERS: u8>(block: &[u8; BLOCK]) -> Masks {
    use std::arch::x86_64::*;
    let mut masks = Masks::default();
    let (sixteens, _) = block.as_chunks::<16>();
    for (index, sixteen) in sixteens.iter().enumerate() {
        // SAFETY: sixteen bytes are read, all of `sixteen`, which need not be aligned.
        #[allow(unsafe_code)]
        let bytes = unsafe { _mm_loadu_si128(sixteen.as_ptr().cast()) };
        let quotes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'"' as i8));
        let backslashes = _mm_cmpeq_epi8(bytes, _mm_set1_epi8(b'\\' as i8));
        let others = if OTHERS == CONTROLS {
            _mm_cmpeq_epi8(_mm_min_epu8(bytes, _mm_set1_epi8(0x1f)), bytes)
        } else {
            // Bit 0x20 apart, `[` is `{` and `]` is `}`; no other byte becomes one of them.
            let folded = _mm_or_si128(bytes, _mm_set1_epi8(0x20));
            let opening = _mm_cmpeq_epi8(folded, _mm_set1_epi8(b'{' as i8));
            _mm_or_si128(opening, _mm_cmpeq_epi8(folded, _mm_set1_epi8(b'}' as i8)))
        };
        let shift = 16 * index;
        masks.quotes |= u64::from(_mm_movemask_epi8(quotes) as u16) << shift;
        masks.backslashes |= u64::from(_mm_movemask_epi8(backslashes) as u16) << shift;
        masks.others |= u64::from(_mm_movemask_epi8(others) as u16) << shift;
    }
    masks
}

#[cfg(not(all(target_arch = "x86_64", target_feature = "sse2")))]
use masks_portable as masks;

#[cfg(any(test, not(all(target_arch = "x86_64", target_feature = "sse2"))))]
#[inline]
fn masks_portable<const OTHERS: u8>(block: &[u8; BLOCK]) -> Masks {
    const EACH: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = EACH << 7;
    const LOW: u64 = !HIGH;
    // The high bit of every byte that is zero, exactly: no carry crosses from one byte to the next.
    let zeros = |word: u64| !(((word & LOW) + LOW) | word) & HIGH;
    let is = |word: u64, byte: u8| zeros(word ^ (EACH * u64::from(byte)));
    // The high bits gathered in the lowest byte.
    let bits = |highs: u64| ((highs >> 7).wrapping_mul(0x0102_0408_1020_4080)) >> 56;
    let mut masks = Masks::default();
    let (eights, _) = block.as_chunks::<8>();
    for (index, eight) in eights.iter().enumerate() {
        let word = u64::from_le_bytes(*eight);
        let folded = word | (EACH * 0x20);
        masks.quotes |= bits(is(word, b'"')) << (8 * index);
        masks.backslashes |= bits(is(word, b'\\')) << (8 * index);
        let others = match OTHERS {
            CONTROLS => zeros(word & (EACH * 0xe0)),
            _ => is(folded, b'{') | is(folded, b'}'),
        };
        masks.others |= bits(others) << (8 * index);
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn masks_by_definition<const OTHERS: u8>(block: &[u8; BLOCK]) -> Masks {
        let bits = |is: &dyn Fn(u8) -> bool| (0..BLOCK).map(|bit| u64::from(is(block[bit])) << bit).sum();
        Masks {
            quotes: bits(&|byte| byte == b'"'),
            backslashes: bits(&|byte| byte == b'\\'),
            others: bits(&|byte| if OTHERS == CONTROLS { byte < 0x20 } else { b"{}[]".contains(&byte) }),
        }
    }

    fn assert_masks(block: &[u8; BLOCK]) {
        assert_eq!(masks::<BRACKETS>(block), masks_by_definition::<BRACKETS>(block));
        assert_eq!(masks::<CONTROLS>(block), masks_by_definition::<CONTROLS>(block));
        assert_eq!(masks_portable::<BRACKETS>(block), masks_by_definition::<BRACKETS>(block));
        assert_eq!(masks_portable::<CONTROLS>(block), masks_by_definition::<CONTROLS>(block));
    }

    #[test]
    fn both_makes_of_masks_know_every_byte_at_every_place() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                for around in [b' ', b'"', b'\\', b'!', 0, 0x7f, 0x80, 0xff] {
                    let mut block = [around; BLOCK];
                    block[place] = byte;
                    assert_masks(&block);
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn both_makes_of_masks_agree_with_the_definition(block in prop::array::uniform32(any::<[u8; 2]>())) {
            assert_masks(&std::array::from_fn(|at| block[at / 2][at % 2]));
        }

        #[test]
        fn backslashes_are_split_as_by_counting(
            bits in any::<u64>(),
            more in any::<u64>(),
            carry in any::<bool>(),
        ) {
            for backslashes in [bits, bits & more, bits | more, u64::MAX] {
                let (mut begin, mut escaped, mut is_escaped) = (0u64, 0u64, carry);
                for bit in 0..64 {
                    let is_backslash = backslashes >> bit & 1 == 1;
                    escaped |= u64::from(is_escaped) << bit;
                    is_escaped = is_backslash && !is_escaped;
                    begin |= u64::from(is_escaped) << bit;
                }
                let mut carried = carry;
                prop_assert_eq!(split_backslashes(backslashes, &mut carried), (begin, escaped));
                prop_assert_eq!(carried, is_escaped);
            }
        }
    }
}

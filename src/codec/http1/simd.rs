//! The two searches that touch every byte of a head, sixteen bytes at a step on x86-64, eight elsewhere.
//!
//! Input: bytes. Output: an offset. A head line is some 30 bytes, too short for wider registers or for
//! choosing an instruction set at run time to pay: SSE2 is what every x86-64 has.
//! Limits: none. Errors: none. The scalar twin runs on other machines and in the agreement test.

#![allow(unsafe_code)]

/// Offset of the first byte below 0x20 or equal to 0x7f, or the length.
#[inline]
pub(super) fn find_control_or_tab(bytes: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2; the function needs nothing else.
    return unsafe { sse2::find_control_or_tab(bytes) };
    #[cfg(not(target_arch = "x86_64"))]
    return scalar::find_control_or_tab(bytes);
}

/// Length of a leading run of letters, digits and `-`: nearly always the whole of a field name. May stop
/// short of the run's end, never beyond it; callers go on byte by byte.
#[inline]
pub(super) fn name_run(bytes: &[u8]) -> usize {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: every x86-64 processor has SSE2; the function needs nothing else.
    return unsafe { sse2::name_run(bytes) };
    #[cfg(not(target_arch = "x86_64"))]
    return scalar::name_run(bytes);
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use super::scalar;
    use std::arch::x86_64::{
        __m128i, _mm_add_epi8, _mm_andnot_si128, _mm_cmpeq_epi8, _mm_min_epu8, _mm_movemask_epi8,
        _mm_or_si128, _mm_set_epi64x, _mm_set1_epi8,
    };

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn find_control_or_tab(bytes: &[u8]) -> usize {
        let (blocks, rest) = bytes.as_chunks::<16>();
        for (index, block) in blocks.iter().enumerate() {
            let block = load(block);
            let below_space = at_most(block, 0x1f);
            let hits = _mm_or_si128(below_space, _mm_cmpeq_epi8(block, splat(0x7f)));
            let mask = _mm_movemask_epi8(hits);
            if mask != 0 {
                return index * 16 + mask.trailing_zeros() as usize;
            }
        }
        blocks.len() * 16 + scalar::find_control_or_tab(rest)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn name_run(bytes: &[u8]) -> usize {
        let (blocks, rest) = bytes.as_chunks::<16>();
        for (index, block) in blocks.iter().enumerate() {
            let block = load(block);
            let letter = within(_mm_or_si128(block, splat(0x20)), b'a', b'z');
            let digit = within(block, b'0', b'9');
            let dash = _mm_cmpeq_epi8(block, splat(b'-'));
            let common = _mm_or_si128(_mm_or_si128(letter, digit), dash);
            let misses = _mm_movemask_epi8(_mm_andnot_si128(common, splat(0xff)));
            if misses != 0 {
                return index * 16 + misses.trailing_zeros() as usize;
            }
        }
        blocks.len() * 16 + scalar::name_run(rest)
    }

    /// Bytes in `min..=max`, as 0xff each: below `min` wraps around to above.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn within(block: __m128i, min: u8, max: u8) -> __m128i {
        at_most(_mm_add_epi8(block, splat(min.wrapping_neg())), max - min)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn at_most(block: __m128i, max: u8) -> __m128i {
        _mm_cmpeq_epi8(_mm_min_epu8(block, splat(max)), block)
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    fn splat(byte: u8) -> __m128i {
        _mm_set1_epi8(byte.cast_signed())
    }

    /// Two words through safe code; the compiler makes one load of it.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn load(block: &[u8; 16]) -> __m128i {
        let block = u128::from_le_bytes(*block);
        _mm_set_epi64x((block >> 64) as i64, block as i64)
    }
}

mod scalar {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x8080_8080_8080_8080;

    pub(super) fn find_control_or_tab(bytes: &[u8]) -> usize {
        let (words, _) = bytes.as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let hits = control_hits(u64::from_le_bytes(*word));
            if hits != 0 {
                return index * 8 + (hits.trailing_zeros() / 8) as usize;
            }
        }
        let at = words.len() * 8;
        let is_hit = |&b: &u8| b < 0x20 || b == 0x7f;
        bytes[at..].iter().position(is_hit).map_or(bytes.len(), |offset| at + offset)
    }

    pub(super) fn name_run(bytes: &[u8]) -> usize {
        let (words, _) = bytes.as_chunks::<8>();
        for (index, word) in words.iter().enumerate() {
            let misses = name_misses(u64::from_le_bytes(*word));
            if misses != 0 {
                return index * 8 + (misses.trailing_zeros() / 8) as usize;
            }
        }
        words.len() * 8
    }

    /// The high bit of each byte below 0x20 or equal to 0x7f; a borrow can mark bytes above the lowest such
    /// byte.
    fn control_hits(word: u64) -> u64 {
        let below_space = word.wrapping_sub(ONES * 0x20) & !word;
        let delete = word ^ (ONES * 0x7f);
        let is_delete = delete.wrapping_sub(ONES) & !delete;
        (below_space | is_delete) & HIGH
    }

    /// The high bit of each byte that is no letter, digit or `-`; exact for every byte, since nothing
    /// carries: each term has seven bits.
    fn name_misses(word: u64) -> u64 {
        let low = word & !HIGH;
        let at_least = |bytes: u64, min: u8| bytes + ONES * u64::from(0x80 - min);
        let within = |bytes: u64, min: u8, max: u8| at_least(bytes, min) & !at_least(bytes, max + 1);
        let letter = within(low | (ONES * 0x20), b'a', b'z');
        let digit = within(low, b'0', b'9');
        let dash = within(low, b'-', b'-');
        (!(letter | digit | dash) | word) & HIGH
    }
}

#[cfg(test)]
mod tests {
    use super::{find_control_or_tab, name_run, scalar};

    /// Every byte at every offset, with a neighbour that a borrow or a carry could disturb.
    fn for_every_byte_at_every_offset(check: impl Fn(&[u8])) {
        for length in [0, 1, 7, 8, 9, 15, 16, 17, 25, 33] {
            check(&vec![b'a'; length]);
            for at in 0..length {
                for byte in 0..=255u8 {
                    for neighbour in [b'a', 0x00, 0x1f, 0x20, 0x7f, 0x80, 0xff] {
                        let mut bytes = vec![b'a'; length];
                        bytes[at] = byte;
                        if at + 1 < length {
                            bytes[at + 1] = neighbour;
                        }
                        check(&bytes);
                    }
                }
            }
        }
    }

    #[test]
    fn control_search_agrees_with_the_naive_one() {
        for_every_byte_at_every_offset(|bytes| {
            let naive = bytes.iter().position(|&b| b < 0x20 || b == 0x7f).unwrap_or(bytes.len());
            assert_eq!(find_control_or_tab(bytes), naive, "{bytes:x?}");
            assert_eq!(scalar::find_control_or_tab(bytes), naive, "{bytes:x?}");
        });
    }

    #[test]
    fn name_run_ends_at_the_first_other_byte_or_in_the_last_word() {
        for_every_byte_at_every_offset(|bytes| {
            let is_common = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            let naive = bytes.iter().position(|&b| !is_common(b)).unwrap_or(bytes.len());
            let whole_words = bytes.len() / 8 * 8;
            assert_eq!(name_run(bytes), naive.min(whole_words), "{bytes:x?}");
            assert_eq!(scalar::name_run(bytes), naive.min(whole_words), "{bytes:x?}");
        });
    }
}

//! Classifies sixteen bytes of a JSON string at a time: with vector instructions on wasm,
//! one by one elsewhere.

#![cfg_attr(
    target_family = "wasm",
    allow(unsafe_code, reason = "a vector is loaded from its address")
)]

/// Sixteen bytes of a string.
pub type Chunk = [u8; SIZE];

/// Number of bytes in a vector.
pub const SIZE: usize = 16;

/// The kinds of bytes in a chunk, as bit masks. The first byte is the lowest bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds {
    /// Bytes that end a run of plain characters.
    pub ends: u16,
    /// Bytes beyond ASCII.
    pub beyond_ascii: u16,
}

/// Whether a byte ends a run of plain characters: a quotation mark, a backslash, or a
/// control character, which no string may contain.
pub fn ends(byte: u8) -> bool {
    byte == b'"' || byte == b'\\' || byte < b' '
}

/// Classifies the bytes of a chunk.
///
/// The vectors stay in registers only if the caller is compiled with the same feature.
#[cfg(target_family = "wasm")]
#[inline]
#[target_feature(enable = "simd128")]
pub fn kinds(chunk: &Chunk) -> Kinds {
    use core::arch::wasm32::{i8x16_eq, u8x16_bitmask, u8x16_lt, u8x16_splat, v128_load, v128_or};
    // SAFETY: a chunk has sixteen bytes, as a vector has, and `v128_load` needs no
    // alignment.
    let bytes = unsafe { v128_load(chunk.as_ptr().cast()) };
    let quotation_marks = i8x16_eq(bytes, u8x16_splat(b'"'));
    let backslashes = i8x16_eq(bytes, u8x16_splat(b'\\'));
    let controls = u8x16_lt(bytes, u8x16_splat(b' '));
    Kinds {
        ends: u8x16_bitmask(v128_or(v128_or(quotation_marks, backslashes), controls)),
        beyond_ascii: u8x16_bitmask(bytes),
    }
}

/// Classifies up to sixteen bytes from `at` on. Returns none if there are none, or if all
/// bytes together are fewer than a chunk.
#[inline]
#[cfg_attr(target_family = "wasm", target_feature(enable = "simd128"))]
pub fn kinds_at(bytes: &[u8], at: usize) -> Option<Kinds> {
    let rest = bytes.get(at..)?;
    if let Some(chunk) = rest.first_chunk() {
        return Some(kinds(chunk));
    }
    if rest.is_empty() {
        return None;
    }
    // The bytes are the end of the last chunk.
    let kinds = kinds(bytes.last_chunk()?);
    let others = SIZE - rest.len();
    Some(Kinds {
        ends: kinds.ends >> others,
        beyond_ascii: kinds.beyond_ascii >> others,
    })
}

/// Classifies the bytes of a chunk.
#[cfg(not(target_family = "wasm"))]
pub fn kinds(chunk: &Chunk) -> Kinds {
    let bits = |is: fn(u8) -> bool| {
        let bit = |(at, byte): (usize, &u8)| u16::from(is(*byte)) << at;
        chunk.iter().enumerate().map(bit).sum()
    };
    Kinds {
        ends: bits(ends),
        beyond_ascii: bits(|byte| !byte.is_ascii()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_has_its_bit() {
        for byte in 0..=u8::MAX {
            for at in 0..SIZE {
                let mut chunk = [b'a'; SIZE];
                chunk[at] = byte;
                let bit = |is| u16::from(is) << at;
                let expected = Kinds {
                    ends: bit(matches!(byte, b'"' | b'\\' | 0..=0x1f)),
                    beyond_ascii: bit(byte > 0x7f),
                };
                assert_eq!(kinds(&chunk), expected, "{byte} at {at}");
            }
        }
    }

    #[test]
    fn the_last_bytes_are_those_that_are_there() {
        let bytes = *b"\"234567890123456789\"";
        for (at, ends) in [(0, 1), (3, 0), (4, 1 << 15), (5, 1 << 14), (19, 1)] {
            let expected = Kinds {
                ends,
                beyond_ascii: 0,
            };
            assert_eq!(kinds_at(&bytes, at), Some(expected), "{at}");
        }
        for (bytes, at) in [(&bytes[..], 20), (&bytes[..], 21), (&bytes[..15], 0)] {
            assert_eq!(kinds_at(bytes, at), None, "{at}");
        }
    }
}

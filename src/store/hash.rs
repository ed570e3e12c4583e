/// The content hash of a batch: its bodies, their lengths and their number, in order.
///
/// Stores keep it for as long as they keep the batch, so it never changes: whoever changes this function makes
/// every batch that comes again after an upgrade look like another one. It finds mistakes, not forgeries.
pub(super) fn content_hash<'b>(bodies: impl IntoIterator<Item = &'b [u8]>) -> u64 {
    const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
    const LENGTH: u64 = 0xd1b5_4a32_d192_ed03;
    const WORD: u64 = 0xa076_1d64_78bd_642f;
    let mut hash = SEED;
    let mut events = 0u64;
    for body in bodies {
        events += 1;
        hash = fold(hash ^ body.len() as u64, LENGTH);
        let (words, rest) = body.as_chunks::<16>();
        for word in words {
            hash = absorb(hash, *word, WORD);
        }
        if !rest.is_empty() {
            let mut word = [0; 16];
            word[..rest.len()].copy_from_slice(rest);
            hash = absorb(hash, word, WORD);
        }
    }
    fold(hash ^ events, LENGTH)
}

/// Takes in 16 bytes, little-endian whatever the machine.
fn absorb(hash: u64, word: [u8; 16], secret: u64) -> u64 {
    let word = u128::from_le_bytes(word);
    fold(hash ^ low(word), secret ^ low(word >> 64))
}

/// The two halves of the 128-bit product, one upon the other: each bit of the result hangs on each bit of both.
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    low(product) ^ low(product >> 64)
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low(wide: u128) -> u64 {
    wide as u64
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn hash_of(bodies: &[&[u8]]) -> u64 {
        content_hash(bodies.iter().copied())
    }

    #[test]
    fn the_hash_of_version_1_never_changes() {
        assert_eq!(hash_of(&[b""]), 0xfa47_cdd8_eb16_beb9);
        assert_eq!(hash_of(&[b"one"]), 0x7cba_9a21_cc2f_32fa);
        assert_eq!(hash_of(&[b"one", b"two"]), 0x0c13_b3ec_a16c_b982);
        assert_eq!(hash_of(&[b"0123456789abcdef"]), 0xcf04_40f1_484b_aec2);
        assert_eq!(hash_of(&[b"0123456789abcdef0123456789abcdefg"]), 0x4337_eedf_e6e4_eb9e);
    }

    #[test]
    fn bounds_order_number_and_every_byte_count() {
        let long = [b'x'; 100];
        let mut seen = HashSet::new();
        let mut different = |bodies: &[&[u8]]| assert!(seen.insert(hash_of(bodies)), "{bodies:?}");
        different(&[b"ab"]);
        different(&[b"a", b"b"]);
        different(&[b"b", b"a"]);
        different(&[b"ab", b""]);
        different(&[b"", b"ab"]);
        different(&[b"ab\0"]);
        different(&[b""]);
        different(&[b"", b""]);
        for at in 0..long.len() {
            for bit in 0..8 {
                let mut changed = long;
                changed[at] ^= 1 << bit;
                different(&[&changed]);
            }
        }
    }
}

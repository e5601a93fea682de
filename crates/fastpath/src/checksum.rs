//! The internet checksum: whole, partial and incremental (RFC 1071, RFC 1624).
//!
//! Sums are kept in the machine's byte order, which ones' complement addition allows, and only ever meet the packet
//! through `to_ne_bytes` and `from_ne_bytes`.

/// The unfolded sum of `bytes`; an odd last byte counts as padded with zero.
#[must_use]
pub fn sum(bytes: &[u8]) -> u64 {
    // Eight independent lanes let the compiler use vector registers.
    let mut lanes = [0u64; 8];
    let mut blocks = bytes.chunks_exact(32);
    for block in &mut blocks {
        for (lane, word) in lanes.iter_mut().zip(block.chunks_exact(4)) {
            *lane += u64::from(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
    }
    let mut total: u64 = lanes.iter().sum();
    let mut words = blocks.remainder().chunks_exact(2);
    for word in &mut words {
        total += u64::from(u16::from_ne_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        total += u64::from(u16::from_ne_bytes([*last, 0]));
    }
    total
}

/// The sum of one big-endian word.
#[must_use]
pub fn word(value: u16) -> u64 {
    u64::from(value.to_be())
}

#[must_use]
pub fn fold(mut sum: u64) -> u16 {
    sum = (sum & 0xffff_ffff) + (sum >> 32);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    sum as u16
}

/// The sum of the pseudo-header of TCP, UDP or ICMPv6; `addresses` are source and destination as in the IP header.
#[must_use]
pub fn pseudo_header(addresses: &[u8], protocol: u8, len: usize) -> u64 {
    // A length beyond 16 bits cannot occur: the IP header's own length field bounds it.
    sum(addresses) + word(u16::from(protocol)) + word(len as u16)
}

/// What [`apply`] has to add where `old` was replaced by `new` (RFC 1624, equation 3).
#[must_use]
pub fn delta(old: &[u8], new: &[u8]) -> u64 {
    if old == new {
        return 0;
    }
    let complement = old.chunks(2).map(|w| u64::from(!u16::from_ne_bytes([w[0], *w.get(1).unwrap_or(&0)])));
    complement.sum::<u64>() + sum(new)
}

/// The checksum field after a change of [`delta`].
#[must_use]
pub fn apply(field: [u8; 2], delta: u64) -> [u8; 2] {
    (!fold(u64::from(!u16::from_ne_bytes(field)) + delta)).to_ne_bytes()
}

/// The checksum field for a sum over everything that it covers, with itself taken as zero.
#[must_use]
pub fn finish(sum: u64) -> [u8; 2] {
    (!fold(sum)).to_ne_bytes()
}

/// As [`finish`] for UDP, where zero would mean "no checksum".
#[must_use]
pub fn finish_udp(sum: u64) -> [u8; 2] {
    match finish(sum) {
        [0, 0] => [0xff, 0xff],
        field => field,
    }
}

/// Whether a sum over everything, the checksum field included, says that nothing changed.
#[must_use]
pub fn is_valid(sum: u64) -> bool {
    fold(sum) == 0xffff
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn slow(bytes: &[u8]) -> u16 {
        let mut total = 0u32;
        for pair in bytes.chunks(2) {
            total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            total = (total & 0xffff) + (total >> 16);
        }
        total as u16
    }

    proptest! {
        #[test]
        fn sum_is_the_obvious_one(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            prop_assert_eq!(fold(sum(&bytes)).to_ne_bytes(), slow(&bytes).to_be_bytes());
        }

        #[test]
        fn incremental_change_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 42..200),
            new in any::<[u8; 8]>(),
        ) {
            bytes[0] = 0x45; // as in any IP header, the sum is never zero
            let before = finish(sum(&bytes));
            let change = delta(&bytes[12..20], &new);
            bytes[12..20].copy_from_slice(&new);
            prop_assert_eq!(apply(before, change), finish(sum(&bytes)));
        }
    }
}

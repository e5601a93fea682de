//! Eight packets at once get what ring makes of them one by one; skipped, and said so, where the processor cannot.

use proptest::prelude::*;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use wide_aead::{LANES, Run, TAG_LEN, WideKey};

fn wide(key: &[u8; 32]) -> Option<WideKey> {
    let wide = WideKey::new(key);
    if wide.is_none() {
        eprintln!("skipped: this processor has no AVX-512 with IFMA");
    }
    wide
}

fn seal_by_ring(key: &[u8; 32], counter: u64, packet: &mut [u8]) {
    let key = LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).unwrap());
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let (text, room) = packet.split_at_mut(packet.len() - TAG_LEN);
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), text).unwrap();
    room.copy_from_slice(tag.as_ref());
}

/// Packets of `len` bytes with gaps of different sizes, whose bytes nobody may touch.
fn laid_out(len: usize, gaps: [usize; LANES]) -> ([usize; LANES], usize) {
    let mut end = 0;
    let starts = gaps.map(|gap| {
        let start = end + gap;
        end = start + len + TAG_LEN;
        start
    });
    (starts, end + 5)
}

fn check(
    key: [u8; 32],
    packets: usize,
    len: usize,
    gaps: [usize; LANES],
    counters: [u64; LANES],
    fill: impl Fn(usize) -> u8,
) {
    let Some(wide) = wide(&key) else { return };
    let (starts, total) = laid_out(len, gaps);
    let plain: Vec<u8> = (0..total).map(fill).collect();
    let run = Run { starts: &starts[..packets], len, counters: &counters[..packets] };
    let mut expected = plain.clone();
    for (start, counter) in starts.into_iter().zip(counters).take(packets) {
        seal_by_ring(&key, counter, &mut expected[start..start + len + TAG_LEN]);
    }
    let mut sealed = plain.clone();

    wide.seal(&mut sealed, &run);
    assert!(sealed == expected, "sealing {len} bytes");

    assert_eq!(wide.open(&mut sealed, &run)[..packets], [true; LANES][..packets]);
    for start in starts {
        assert!(sealed[start..start + len] == plain[start..start + len], "opening {len} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn as_ring_does(
        key: [u8; 32],
        packets in 1..=LANES,
        len in 0usize..1500,
        gaps: [u8; LANES],
        counters: [u64; LANES],
        seed: u64,
    ) {
        check(key, packets, len, gaps.map(usize::from), counters, |at| {
            (seed.wrapping_mul(at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u8
        });
    }

    #[test]
    fn one_changed_bit_is_noticed_in_its_packet_only(lane in 0..LANES, len in 1usize..1400, at: prop::sample::Index, bit in 0u8..8) {
        let key = [7; 32];
        if let Some(wide) = wide(&key) {
            let (starts, total) = laid_out(len, [3; LANES]);
            let run = Run { starts: &starts, len, counters: &[1, 2, 3, 4, 5, 6, 7, 8] };
            let mut buffer = vec![0x5a; total];
            wide.seal(&mut buffer, &run);
            buffer[starts[lane] + at.index(len + TAG_LEN)] ^= 1 << bit;
            let expected: [bool; LANES] = std::array::from_fn(|other| other != lane);
            prop_assert_eq!(wide.open(&mut buffer, &run), expected);
        }
    }
}

#[test]
fn every_length_around_whole_blocks_and_chunks() {
    for len in (0..200).chain(1200..1320) {
        check([len as u8; 32], LANES, len, [0; LANES], std::array::from_fn(|lane| u64::MAX - lane as u64), |at| {
            at as u8
        });
    }
}

/// Poly1305 over ciphertext of all ones or all zeros carries most, or wraps around the modulus: RFC 8439, A.3 has such texts.
#[test]
fn ciphertext_with_the_most_carries() {
    for (fill, len) in [0xff, 0x00].into_iter().flat_map(|fill| [16, 48, 64, 1264, 1280].map(|len| (fill, len))) {
        for key in 0..50 {
            let key = [key; 32];
            let counters = [0, 1, 2, 3, 4, 5, 6, 7];
            let Some(wide) = wide(&key) else { return };
            // The key stream itself, and so a text whose ciphertext is all `fill`.
            let starts: [usize; LANES] = std::array::from_fn(|lane| lane * (len + TAG_LEN));
            let run = Run { starts: &starts, len, counters: &counters };
            let mut stream = vec![0; LANES * (len + TAG_LEN)];
            wide.seal(&mut stream, &run);
            let text: Vec<u8> = stream.iter().map(|byte| byte ^ fill).collect();
            check(key, LANES, len, [0; LANES], counters, |at| text.get(at).copied().unwrap_or(0));
        }
    }
}

#[test]
#[should_panic(expected = "apart from each other")]
fn packets_that_overlap_are_refused() {
    let key = [0; 32];
    let Some(wide) = wide(&key) else { panic!("apart from each other, if this processor could do it") };
    let starts: [usize; LANES] = std::array::from_fn(|lane| lane * 20);
    let run = Run { starts: &starts, len: 16, counters: &[0; LANES] };
    wide.seal(&mut [0; 1000], &run);
}

#[test]
#[should_panic(expected = "inside the buffer")]
fn packets_beyond_the_buffer_are_refused() {
    let key = [0; 32];
    let Some(wide) = wide(&key) else { panic!("inside the buffer, if this processor could do it") };
    let starts: [usize; LANES] = std::array::from_fn(|lane| lane * 32);
    let run = Run { starts: &starts, len: 16, counters: &[0; LANES] };
    wide.seal(&mut [0; 8 * 32 - 1], &run);
}

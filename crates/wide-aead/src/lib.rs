//! ChaCha20-Poly1305 (RFC 8439) for eight packets of one length at once, where the processor has AVX-512.
//!
//! A tunnel seals and opens packets in runs of equal length under one key. Libraries take them one by one, and of a
//! packet's twenty ChaCha20 blocks some vector lanes stay empty, while Poly1305 waits for its own multiplications. Here each of
//! eight lanes is a packet: ChaCha20 makes two blocks of each at a time, and Poly1305 is the plain loop over one packet's
//! blocks, eight times beside itself.
//!
//! As WireGuard wants it: no additional data, and a nonce of four zero bytes and the counter in little-endian order. No step
//! depends on secret data in its time or its addresses.

#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "x86_64")]
mod chacha;
#[cfg(target_arch = "x86_64")]
mod poly;

use std::sync::OnceLock;

use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

/// How many packets are taken at once; fewer take as long.
pub const LANES: usize = 8;
/// From so many packets on it is faster than one by one.
pub const WORTHWHILE: usize = 5;
pub const TAG_LEN: usize = 16;
/// The longest packet.
pub const MAX_LEN: usize = 2048;

/// Where at most eight packets are in a buffer: `len` bytes each, with room for the tag behind; `starts` ascend, nothing overlaps.
#[derive(Debug, Clone, Copy)]
pub struct Run<'a> {
    pub starts: &'a [usize],
    pub len: usize,
    /// One for each packet.
    pub counters: &'a [u64],
}

impl Run<'_> {
    /// Whether all of it is inside a buffer of `len` bytes, and apart from each other.
    fn fits(&self, len: usize) -> bool {
        let mut free_from = 0;
        self.starts.len() <= LANES
            && self.counters.len() == self.starts.len()
            && self.len <= MAX_LEN
            && self.starts.iter().all(|start| {
                let is_apart = *start >= free_from;
                free_from = start.saturating_add(self.len + TAG_LEN);
                is_apart && free_from <= len
            })
    }
}

/// A key, for a processor that can do it.
pub struct WideKey {
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code))]
    words: [u32; 8],
}

impl WideKey {
    /// `None` if this processor lacks what is needed, or did not do it right when it was tried.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Option<Self> {
        is_usable().then(|| Self::unchecked(key))
    }

    fn unchecked(key: &[u8; 32]) -> Self {
        let mut words = [0; 8];
        for (word, bytes) in words.iter_mut().zip(key.chunks_exact(4)) {
            *word = u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        Self { words }
    }

    /// Seals in place; each tag goes behind its packet.
    ///
    /// # Panics
    /// If `run` does not fit `buffer`.
    pub fn seal(&self, buffer: &mut [u8], run: &Run<'_>) {
        assert!(
            run.fits(buffer.len()),
            "at most eight packets and their tags are inside the buffer, apart from each other"
        );
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a key exists only where the processor has the features, and the run was checked.
        unsafe {
            avx512::seal(&self.words, buffer.as_mut_ptr(), run);
        }
    }

    /// Opens in place, and tells which packets are authentic, in order; the bytes of others are of no use afterwards.
    ///
    /// # Panics
    /// If `run` does not fit `buffer`.
    #[must_use]
    pub fn open(&self, buffer: &mut [u8], run: &Run<'_>) -> [bool; LANES] {
        assert!(
            run.fits(buffer.len()),
            "at most eight packets and their tags are inside the buffer, apart from each other"
        );
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a key exists only where the processor has the features, and the run was checked.
        return unsafe { avx512::open(&self.words, buffer.as_mut_ptr(), run) };
        #[cfg(not(target_arch = "x86_64"))]
        unreachable!("there are no keys for this processor");
    }
}

/// Whether this processor has the features, and gets the same as ring on some packets; tried once.
fn is_usable() -> bool {
    static USABLE: OnceLock<bool> = OnceLock::new();
    *USABLE.get_or_init(|| has_features() && agrees_with_ring())
}

#[cfg(target_arch = "x86_64")]
fn has_features() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512ifma")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_features() -> bool {
    false
}

fn agrees_with_ring() -> bool {
    let key = std::array::from_fn(|at| at as u8 ^ 0xa5);
    let (wide, narrow) = (WideKey::unchecked(&key), narrow_key(&key));
    [16, 52, 100, 1260, 1280].into_iter().all(|len| {
        let starts: [usize; LANES] = std::array::from_fn(|lane| lane * (len + TAG_LEN));
        let counters: [u64; LANES] = std::array::from_fn(|lane| (lane as u64) << 31 | 7);
        let run = Run { starts: &starts, len, counters: &counters };
        let plain: Vec<u8> = (0..LANES * (len + TAG_LEN)).map(|at| (at * 31) as u8).collect();
        let (mut sealed, mut expected) = (plain.clone(), plain.clone());
        wide.seal(&mut sealed, &run);
        for (packet, counter) in expected.chunks_exact_mut(len + TAG_LEN).zip(counters) {
            seal_narrow(&narrow, counter, packet);
        }
        let mut opened = sealed.clone();
        let is_same = |(a, b): (&[u8], &[u8])| a[..len] == b[..len];
        sealed == expected
            && wide.open(&mut opened, &run) == [true; LANES]
            && opened.chunks(len + TAG_LEN).zip(plain.chunks(len + TAG_LEN)).all(is_same)
    })
}

fn narrow_key(key: &[u8; 32]) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, key).expect("32 bytes are this cipher's key length"))
}

fn seal_narrow(key: &LessSafeKey, counter: u64, packet: &mut [u8]) {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&counter.to_le_bytes());
    let (text, tag_room) = packet.split_at_mut(packet.len() - TAG_LEN);
    let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::empty(), text);
    tag_room.copy_from_slice(tag.expect("a packet is far shorter than the cipher's limit").as_ref());
}

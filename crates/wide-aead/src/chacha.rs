//! ChaCha20 on sixteen lanes: two blocks of each of eight packets.

use std::arch::x86_64::{
    __m512i, __mmask64, _mm256_set1_epi32, _mm512_add_epi32, _mm512_inserti64x4, _mm512_loadu_si512,
    _mm512_mask_storeu_epi8, _mm512_maskz_loadu_epi8, _mm512_rol_epi32, _mm512_set1_epi32, _mm512_setzero_si512,
    _mm512_shuffle_i32x4, _mm512_storeu_si512, _mm512_unpackhi_epi32, _mm512_unpackhi_epi64, _mm512_unpacklo_epi32,
    _mm512_unpacklo_epi64, _mm512_xor_si512,
};

use crate::LANES;

pub const POLY_KEY_LEN: usize = 32;
const BLOCK: usize = 64;
const CONSTANTS: [u32; 4] = [0x6170_7865, 0x3320_646e, 0x7962_2d32, 0x6b20_6574];

/// The key stream of eight packets: the first two blocks are there, the others are made when they are needed.
pub struct Cipher<'a> {
    key: &'a [u32; 8],
    nonce_low: __m512i,
    nonce_high: __m512i,
    /// Blocks 0, which Poly1305's key is from, and blocks 1.
    start: [__m512i; 2 * LANES],
}

impl<'a> Cipher<'a> {
    #[target_feature(enable = "avx512f")]
    pub fn new(key: &'a [u32; 8], counters: &[u64; LANES]) -> Self {
        let nonce_low = both(counters.map(|counter| counter as u32));
        let nonce_high = both(counters.map(|counter| (counter >> 32) as u32));
        Self { key, nonce_low, nonce_high, start: key_stream(key, 0, nonce_low, nonce_high) }
    }

    /// Each packet's key for Poly1305.
    #[target_feature(enable = "avx512f")]
    pub fn poly_keys(&self) -> [[u8; POLY_KEY_LEN]; LANES] {
        std::array::from_fn(|lane| {
            let mut block = [0; BLOCK];
            // SAFETY: a block is as long as the vector.
            unsafe { _mm512_storeu_si512(block.as_mut_ptr().cast(), self.start[lane]) };
            std::array::from_fn(|at| block[at])
        })
    }

    /// Adds the key stream to `len` bytes of each packet.
    ///
    /// # Safety
    /// Each packet has `len` bytes that nobody else uses meanwhile.
    #[target_feature(enable = "avx512f,avx512bw")]
    pub unsafe fn apply(&self, packets: [*mut u8; LANES], len: usize) {
        let add_block = |stream: &[__m512i], at: usize| {
            if at < len {
                for (packet, bytes) in packets.into_iter().zip(stream) {
                    // SAFETY: `at` is below `len`, and no more than what is left up to `len` is read and written.
                    unsafe { add_stream(packet.add(at), len - at, *bytes) };
                }
            }
        };
        add_block(&self.start[LANES..], 0);
        for number in (2..=len.div_ceil(BLOCK)).step_by(2) {
            let stream = key_stream(self.key, number as i32, self.nonce_low, self.nonce_high);
            add_block(&stream[..LANES], (number - 1) * BLOCK);
            add_block(&stream[LANES..], number * BLOCK);
        }
    }
}

/// # Safety
/// `left` bytes, or a block if they are more, are readable and writable at `at`.
#[target_feature(enable = "avx512f,avx512bw")]
unsafe fn add_stream(at: *mut u8, left: usize, stream: __m512i) {
    // SAFETY: the caller's promise; the mask leaves out what is beyond.
    unsafe {
        if left >= BLOCK {
            let text = _mm512_loadu_si512(at.cast());
            _mm512_storeu_si512(at.cast(), _mm512_xor_si512(text, stream));
        } else {
            let mask: __mmask64 = (1 << left) - 1;
            let text = _mm512_maskz_loadu_epi8(mask, at.cast());
            _mm512_mask_storeu_epi8(at.cast(), mask, _mm512_xor_si512(text, stream));
        }
    }
}

/// The same eight values for both blocks.
#[target_feature(enable = "avx512f")]
fn both(values: [u32; LANES]) -> __m512i {
    let twice: [u32; 2 * LANES] = std::array::from_fn(|at| values[at % LANES]);
    // SAFETY: the array is as long as the vector.
    unsafe { _mm512_loadu_si512(twice.as_ptr().cast()) }
}

/// Four quarter rounds that have nothing to do with each other, step by step; a macro, so that all words stay in registers.
macro_rules! four_quarters {
    ($x:ident, $([$a:literal, $b:literal, $c:literal, $d:literal]),*) => {
        $($x[$a] = _mm512_add_epi32($x[$a], $x[$b]);)*
        $($x[$d] = _mm512_rol_epi32::<16>(_mm512_xor_si512($x[$d], $x[$a]));)*
        $($x[$c] = _mm512_add_epi32($x[$c], $x[$d]);)*
        $($x[$b] = _mm512_rol_epi32::<12>(_mm512_xor_si512($x[$b], $x[$c]));)*
        $($x[$a] = _mm512_add_epi32($x[$a], $x[$b]);)*
        $($x[$d] = _mm512_rol_epi32::<8>(_mm512_xor_si512($x[$d], $x[$a]));)*
        $($x[$c] = _mm512_add_epi32($x[$c], $x[$d]);)*
        $($x[$b] = _mm512_rol_epi32::<7>(_mm512_xor_si512($x[$b], $x[$c]));)*
    };
}

/// Sixteen blocks of key stream, one in each vector: block `first` of each packet, then the block behind it.
#[target_feature(enable = "avx512f")]
fn key_stream(key: &[u32; 8], first: i32, nonce_low: __m512i, nonce_high: __m512i) -> [__m512i; 16] {
    let mut start = [_mm512_setzero_si512(); 16];
    for (vector, word) in start.iter_mut().zip(CONSTANTS.iter().chain(key)) {
        *vector = _mm512_set1_epi32(word.cast_signed());
    }
    // The first word of WireGuard's nonce, 13, stays zero.
    let numbers = _mm512_inserti64x4::<1>(_mm512_set1_epi32(first), _mm256_set1_epi32(first + 1));
    (start[12], start[14], start[15]) = (numbers, nonce_low, nonce_high);
    let mut x = start;
    for _ in 0..10 {
        four_quarters!(x, [0, 4, 8, 12], [1, 5, 9, 13], [2, 6, 10, 14], [3, 7, 11, 15]);
        four_quarters!(x, [0, 5, 10, 15], [1, 6, 11, 12], [2, 7, 8, 13], [3, 4, 9, 14]);
    }
    for (vector, first) in x.iter_mut().zip(start) {
        *vector = _mm512_add_epi32(*vector, first);
    }
    transposed(x)
}

/// Vectors of one word of each block become vectors of one block each.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(x: [__m512i; 16]) -> [__m512i; 16] {
    let mut pairs = x;
    for at in 0..8 {
        pairs[2 * at] = _mm512_unpacklo_epi32(x[2 * at], x[2 * at + 1]);
        pairs[2 * at + 1] = _mm512_unpackhi_epi32(x[2 * at], x[2 * at + 1]);
    }
    // Four words of one block in each quarter of a vector: of blocks 0, 4, 8, 12 in the first, of 1, 5, 9, 13 in the second.
    let mut fours = x;
    for at in 0..4 {
        let [a, b, c, d] = [pairs[4 * at], pairs[4 * at + 1], pairs[4 * at + 2], pairs[4 * at + 3]];
        fours[4 * at] = _mm512_unpacklo_epi64(a, c);
        fours[4 * at + 1] = _mm512_unpackhi_epi64(a, c);
        fours[4 * at + 2] = _mm512_unpacklo_epi64(b, d);
        fours[4 * at + 3] = _mm512_unpackhi_epi64(b, d);
    }
    let mut blocks = x;
    for at in 0..4 {
        let [a, b, c, d] = [fours[at], fours[4 + at], fours[8 + at], fours[12 + at]];
        let (low_ab, high_ab) = (_mm512_shuffle_i32x4::<0x44>(a, b), _mm512_shuffle_i32x4::<0xee>(a, b));
        let (low_cd, high_cd) = (_mm512_shuffle_i32x4::<0x44>(c, d), _mm512_shuffle_i32x4::<0xee>(c, d));
        blocks[at] = _mm512_shuffle_i32x4::<0x88>(low_ab, low_cd);
        blocks[4 + at] = _mm512_shuffle_i32x4::<0xdd>(low_ab, low_cd);
        blocks[8 + at] = _mm512_shuffle_i32x4::<0x88>(high_ab, high_cd);
        blocks[12 + at] = _mm512_shuffle_i32x4::<0xdd>(high_ab, high_cd);
    }
    blocks
}

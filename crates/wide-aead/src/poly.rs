//! Poly1305 on eight lanes, one for each packet, in limbs of 44, 44 and 42 bits.
//!
//! The blocks of a packet go to two sums in turn, each multiplied by the square of the key at each step, so that the
//! multiplications of one do not wait for those of the other.

use std::arch::x86_64::{
    __m512i, __mmask64, _mm512_add_epi64, _mm512_and_si512, _mm512_loadu_si512, _mm512_madd52hi_epu64,
    _mm512_madd52lo_epu64, _mm512_maskz_loadu_epi8, _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512,
    _mm512_shuffle_i64x2, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_storeu_si512, _mm512_unpackhi_epi64,
    _mm512_unpacklo_epi64,
};

use crate::chacha::POLY_KEY_LEN;
use crate::{LANES, TAG_LEN};

const CHUNK: usize = 64;
const BLOCKS_PER_CHUNK: usize = CHUNK / 16;
const MASK_44: u64 = (1 << 44) - 1;
const MASK_42: u64 = (1 << 42) - 1;
const CLAMP: u128 = 0x0fff_fffc_0fff_fffc_0fff_fffc_0fff_ffff;

/// A number of each lane, modulo 2^130 - 5 but not fully reduced.
#[derive(Clone, Copy)]
struct Limbs([__m512i; 3]);

/// What a number is multiplied by: its limbs, and the upper two times 20, which is what wraps around.
#[derive(Clone, Copy)]
struct Factor {
    limbs: [__m512i; 3],
    wrapped: [__m512i; 2],
}

/// The tag of `len` bytes of each packet.
///
/// # Safety
/// Each packet has `len` bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub unsafe fn tags(
    keys: &[[u8; POLY_KEY_LEN]; LANES],
    packets: [*mut u8; LANES],
    len: usize,
) -> [[u8; TAG_LEN]; LANES] {
    let r = limbs_of(keys.map(|key| u128_at(&key[..16]) & CLAMP));
    let once = Factor::new(r);
    let twice = Factor::new(multiplied(r, &once));
    let blocks = len.div_ceil(16) + 1;
    let mut sums = [Limbs([_mm512_setzero_si512(); 3]); 2];
    // The last block is of the second sum; with an odd number of blocks the first block is, too.
    let mut turn = blocks % 2;
    let mut take = |low: __m512i, high: __m512i| {
        sums[turn] = plus_block(multiplied(sums[turn], &twice), low, high);
        turn ^= 1;
    };
    let mut at = 0;
    while len - at >= CHUNK {
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, packet) in rows.iter_mut().zip(packets) {
            // SAFETY: a whole chunk is left of each packet.
            *row = unsafe { _mm512_loadu_si512(packet.add(at).cast()) };
        }
        let columns = transposed(rows);
        for block in 0..BLOCKS_PER_CHUNK {
            take(columns[2 * block], columns[2 * block + 1]);
        }
        at += CHUNK;
    }
    let left = len - at;
    if left > 0 {
        let mask: __mmask64 = (1 << left) - 1;
        let mut rows = [_mm512_setzero_si512(); LANES];
        for (row, packet) in rows.iter_mut().zip(packets) {
            // SAFETY: the mask leaves out what is beyond the packets.
            *row = unsafe { _mm512_maskz_loadu_epi8(mask, packet.add(at).cast()) };
        }
        let columns = transposed(rows);
        for block in 0..left.div_ceil(16) {
            take(columns[2 * block], columns[2 * block + 1]);
        }
    }
    take(_mm512_setzero_si512(), _mm512_set1_epi64(len as i64));
    let [first, second] = sums;
    finished(plus(multiplied(first, &twice), multiplied(second, &once)), keys)
}

impl Factor {
    #[target_feature(enable = "avx512f")]
    fn new(Limbs(limbs): Limbs) -> Self {
        let times_20 = |limb| _mm512_add_epi64(_mm512_slli_epi64::<4>(limb), _mm512_slli_epi64::<2>(limb));
        Self { limbs, wrapped: [times_20(limbs[1]), times_20(limbs[2])] }
    }
}

/// Limbs stay below 2^45 for any factor made of such limbs, and with a block added below 2^46.
#[inline]
#[target_feature(enable = "avx512f,avx512ifma")]
fn multiplied(Limbs([h0, h1, h2]): Limbs, factor: &Factor) -> Limbs {
    let zero = _mm512_setzero_si512();
    let ([r0, r1, r2], [w1, w2]) = (factor.limbs, factor.wrapped);
    let low =
        |a, b, c, x, y, z| _mm512_madd52lo_epu64(_mm512_madd52lo_epu64(_mm512_madd52lo_epu64(zero, a, x), b, y), c, z);
    let high =
        |a, b, c, x, y, z| _mm512_madd52hi_epu64(_mm512_madd52hi_epu64(_mm512_madd52hi_epu64(zero, a, x), b, y), c, z);
    // The limb that was added to last comes first: the others are there before it.
    let (low0, high0) = (low(h2, h1, h0, w1, w2, r0), high(h2, h1, h0, w1, w2, r0));
    let (low1, high1) = (low(h2, h1, h0, w2, r0, r1), high(h2, h1, h0, w2, r0, r1));
    let (low2, high2) = (low(h2, h1, h0, r0, r1, r2), high(h2, h1, h0, r0, r1, r2));
    let (mask_44, mask_42) = (_mm512_set1_epi64(MASK_44 as i64), _mm512_set1_epi64(MASK_42 as i64));
    // A product's upper part weighs 2^52: 2^8 of the next limb, and from the last one 2^10 of what wraps around.
    let sum1 = plus_three(low1, _mm512_slli_epi64::<8>(high0), _mm512_srli_epi64::<44>(low0));
    let sum2 = plus_three(low2, _mm512_slli_epi64::<8>(high1), _mm512_srli_epi64::<44>(sum1));
    let wrapping = _mm512_add_epi64(_mm512_slli_epi64::<10>(high2), _mm512_srli_epi64::<42>(sum2));
    let sum0 = plus_three(_mm512_and_si512(low0, mask_44), wrapping, _mm512_slli_epi64::<2>(wrapping));
    Limbs([
        _mm512_and_si512(sum0, mask_44),
        _mm512_add_epi64(_mm512_and_si512(sum1, mask_44), _mm512_srli_epi64::<44>(sum0)),
        _mm512_and_si512(sum2, mask_42),
    ])
}

#[inline]
#[target_feature(enable = "avx512f")]
fn plus_three(a: __m512i, b: __m512i, c: __m512i) -> __m512i {
    _mm512_add_epi64(_mm512_add_epi64(a, b), c)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn plus(Limbs(a): Limbs, Limbs(b): Limbs) -> Limbs {
    Limbs([_mm512_add_epi64(a[0], b[0]), _mm512_add_epi64(a[1], b[1]), _mm512_add_epi64(a[2], b[2])])
}

/// Adds a block of sixteen bytes, given as two words, and the bit above it.
#[inline]
#[target_feature(enable = "avx512f")]
fn plus_block(Limbs([h0, h1, h2]): Limbs, low: __m512i, high: __m512i) -> Limbs {
    let mask = _mm512_set1_epi64(MASK_44 as i64);
    let middle = _mm512_or_si512(_mm512_srli_epi64::<44>(low), _mm512_slli_epi64::<20>(high));
    let top = _mm512_or_si512(_mm512_srli_epi64::<24>(high), _mm512_set1_epi64(1 << 40));
    Limbs([
        _mm512_add_epi64(h0, _mm512_and_si512(low, mask)),
        _mm512_add_epi64(h1, _mm512_and_si512(middle, mask)),
        _mm512_add_epi64(h2, top),
    ])
}

/// Rows of eight words of a packet each become columns of one word of every packet.
#[inline]
#[target_feature(enable = "avx512f")]
fn transposed(rows: [__m512i; 8]) -> [__m512i; 8] {
    let mut pairs = rows;
    for at in 0..4 {
        pairs[2 * at] = _mm512_unpacklo_epi64(rows[2 * at], rows[2 * at + 1]);
        pairs[2 * at + 1] = _mm512_unpackhi_epi64(rows[2 * at], rows[2 * at + 1]);
    }
    let mut columns = rows;
    for odd in 0..2 {
        let [a, b, c, d] = [pairs[odd], pairs[2 + odd], pairs[4 + odd], pairs[6 + odd]];
        // Quarters of `a` are words 0, 2, 4, 6 of the first two packets.
        let (low_ab, high_ab) = (_mm512_shuffle_i64x2::<0x44>(a, b), _mm512_shuffle_i64x2::<0xee>(a, b));
        let (low_cd, high_cd) = (_mm512_shuffle_i64x2::<0x44>(c, d), _mm512_shuffle_i64x2::<0xee>(c, d));
        columns[odd] = _mm512_shuffle_i64x2::<0x88>(low_ab, low_cd);
        columns[2 + odd] = _mm512_shuffle_i64x2::<0xdd>(low_ab, low_cd);
        columns[4 + odd] = _mm512_shuffle_i64x2::<0x88>(high_ab, high_cd);
        columns[6 + odd] = _mm512_shuffle_i64x2::<0xdd>(high_ab, high_cd);
    }
    columns
}

#[target_feature(enable = "avx512f")]
fn limbs_of(values: [u128; LANES]) -> Limbs {
    let limb = |shift: u32, mask: u64| vector(values.map(|value| (value >> shift) as u64 & mask));
    Limbs([limb(0, MASK_44), limb(44, MASK_44), limb(88, MASK_42)])
}

#[target_feature(enable = "avx512f")]
fn vector(values: [u64; LANES]) -> __m512i {
    // SAFETY: the array is as long as the vector.
    unsafe { _mm512_loadu_si512(values.as_ptr().cast()) }
}

#[target_feature(enable = "avx512f")]
fn array(vector: __m512i) -> [u64; LANES] {
    let mut values = [0; LANES];
    // SAFETY: the array is as long as the vector.
    unsafe { _mm512_storeu_si512(values.as_mut_ptr().cast(), vector) };
    values
}

/// The least remainder, and the second half of the key added.
#[target_feature(enable = "avx512f")]
fn finished(Limbs(sum): Limbs, keys: &[[u8; POLY_KEY_LEN]; LANES]) -> [[u8; TAG_LEN]; LANES] {
    let [low, middle, top] = sum.map(|limb| array(limb));
    std::array::from_fn(|lane| {
        let sum = remainder(low[lane], middle[lane], top[lane]);
        sum.wrapping_add(u128_at(&keys[lane][16..])).to_le_bytes()
    })
}

/// The low 128 bits of the least remainder modulo 2^130 - 5, for limbs below 2^63.
fn remainder(low: u64, middle: u64, top: u64) -> u128 {
    let (mut h0, mut h1, mut h2) = (low, middle, top);
    for _ in 0..2 {
        h1 += h0 >> 44;
        h2 += h1 >> 44;
        h0 = (h0 & MASK_44) + 5 * (h2 >> 42);
        (h1, h2) = (h1 & MASK_44, h2 & MASK_42);
    }
    h1 += h0 >> 44;
    h0 &= MASK_44;
    h2 += h1 >> 44;
    h1 &= MASK_44;
    // It is at least the modulus if adding 5 reaches bit 130.
    let carry = (((h0 + 5) >> 44) + h1) >> 44;
    let is_above = (h2 + carry) >> 42;
    let whole = u128::from(h0) | u128::from(h1) << 44 | u128::from(h2) << 88;
    whole.wrapping_add(5 * u128::from(is_above))
}

fn u128_at(bytes: &[u8]) -> u128 {
    let mut value = [0; 16];
    value.copy_from_slice(bytes);
    u128::from_le_bytes(value)
}

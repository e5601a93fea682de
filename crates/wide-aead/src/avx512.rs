//! The two passes over eight packets put together.

use crate::chacha::Cipher;
use crate::poly::tags;
use crate::{LANES, MAX_LEN, Run, TAG_LEN};

/// Where lanes without a packet read and write.
struct Spare([u8; MAX_LEN]);

/// The packets of a run, filled up with spare ones, whose bytes all lanes without a packet share.
fn lanes(base: *mut u8, run: &Run<'_>, spare: &mut Spare) -> ([*mut u8; LANES], [u64; LANES]) {
    let (mut packets, mut counters) = ([spare.0.as_mut_ptr(); LANES], [0; LANES]);
    for (lane, (start, counter)) in run.starts.iter().zip(run.counters).enumerate() {
        packets[lane] = base.wrapping_add(*start);
        counters[lane] = *counter;
    }
    (packets, counters)
}

/// # Safety
/// The processor has AVX-512 F, BW and IFMA, and `run` is inside the buffer at `base`.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub unsafe fn seal(key: &[u32; 8], base: *mut u8, run: &Run<'_>) {
    let mut spare = Spare([0; MAX_LEN]);
    let (packets, counters) = lanes(base, run, &mut spare);
    // SAFETY: the caller's promise gives `len` bytes at each packet, and room for a tag behind; a spare one is long enough.
    unsafe {
        let cipher = Cipher::new(key, &counters);
        cipher.apply(packets, run.len);
        let tags = tags(&cipher.poly_keys(), packets, run.len);
        for (packet, tag) in packets.into_iter().zip(tags).take(run.starts.len()) {
            packet.add(run.len).cast::<[u8; TAG_LEN]>().write_unaligned(tag);
        }
    }
}

/// # Safety
/// The processor has AVX-512 F, BW and IFMA, and `run` is inside the buffer at `base`.
#[target_feature(enable = "avx512f,avx512bw,avx512ifma")]
pub unsafe fn open(key: &[u32; 8], base: *mut u8, run: &Run<'_>) -> [bool; LANES] {
    let mut spare = Spare([0; MAX_LEN]);
    let (packets, counters) = lanes(base, run, &mut spare);
    let mut are_authentic = [false; LANES];
    // SAFETY: the caller's promise gives `len` bytes at each packet, and a tag behind; a spare one is long enough.
    unsafe {
        let cipher = Cipher::new(key, &counters);
        let made = tags(&cipher.poly_keys(), packets, run.len);
        for (lane, packet) in packets.into_iter().enumerate().take(run.starts.len()) {
            let told = packet.add(run.len).cast::<[u8; TAG_LEN]>().read_unaligned();
            are_authentic[lane] = u128::from_ne_bytes(told) ^ u128::from_ne_bytes(made[lane]) == 0;
        }
        cipher.apply(packets, run.len);
    }
    are_authentic
}

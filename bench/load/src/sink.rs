//! Counts what arrives at sockets that the caller has opened, and how long each datagram was under way.

use std::io::{self, BufRead};
use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

const SLOTS: usize = 16;
/// Room for what the kernel has coalesced.
const SLOT: usize = 65_536;
/// No more times than this are kept between two questions.
const MAX_TIMES: usize = 8_000_000;

/// What came since the last question.
#[derive(Default)]
struct Seen {
    datagrams: u64,
    bytes: u64,
    times_ns: Vec<u32>,
}

/// Answers each line on standard input with what came since the last one, until there is none.
///
/// `size` is that of every payload, `header` what stands in front of it; `is_timed` says whether to keep times.
///
/// # Errors
/// The sockets cannot be waited for.
pub fn run(size: usize, header: usize, is_timed: bool, descriptors: Vec<RawFd>) -> Result<(), String> {
    let epoll = watch(&descriptors).map_err(|error| format!("epoll: {error}"))?;
    let seen = Arc::new(Mutex::new(Seen::default()));
    let counted = Arc::clone(&seen);
    thread::spawn(move || count(epoll, header + size, header, is_timed, &counted));
    for line in io::stdin().lock().lines() {
        if line.is_err() {
            break;
        }
        let mut now = std::mem::take(&mut *seen.lock().unwrap_or_else(PoisonError::into_inner));
        now.times_ns.sort_unstable();
        let at = |share: f64| {
            let last = now.times_ns.len().saturating_sub(1);
            now.times_ns.get((last as f64 * share).round() as usize).copied().unwrap_or(0)
        };
        println!(
            "{{\"datagrams\": {}, \"bytes\": {}, \"p50_ns\": {}, \"p99_ns\": {}, \"most_ns\": {}}}",
            now.datagrams,
            now.bytes,
            at(0.5),
            at(0.99),
            at(1.0)
        );
    }
    Ok(())
}

fn watch(descriptors: &[RawFd]) -> io::Result<RawFd> {
    // SAFETY: takes no pointers.
    let epoll = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    for fd in descriptors {
        let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: *fd as u64 };
        // SAFETY: the kernel copies the local event.
        checked(unsafe { libc::epoll_ctl(epoll, libc::EPOLL_CTL_ADD, *fd, &raw mut event) })?;
    }
    Ok(epoll)
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn count(epoll: RawFd, frame: usize, header: usize, is_timed: bool, seen: &Mutex<Seen>) {
    let mut memory = vec![0_u8; SLOTS * SLOT];
    let mut vectors: Vec<libc::iovec> = memory
        .chunks_exact_mut(SLOT)
        .map(|slot| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT })
        .collect();
    let mut headers: Vec<libc::mmsghdr> = vectors
        .iter_mut()
        .map(|vector| {
            // SAFETY: all zeroes are a valid header: no address, no control data, no flags.
            let mut header: libc::mmsghdr = unsafe { std::mem::zeroed() };
            header.msg_hdr.msg_iov = vector;
            header.msg_hdr.msg_iovlen = 1;
            header
        })
        .collect();
    let mut events = [libc::epoll_event { events: 0, u64: 0 }; 256];
    loop {
        // SAFETY: the kernel writes at most as many events as there is room for.
        let ready = unsafe { libc::epoll_wait(epoll, events.as_mut_ptr(), 256, -1) };
        for event in events.iter().take(usize::try_from(ready).unwrap_or(0)) {
            let fd = event.u64 as RawFd;
            // SAFETY: the headers and what they point to are alive; the kernel writes at most `iov_len` into each.
            let received = unsafe {
                let nothing = std::ptr::null_mut();
                libc::recvmmsg(fd, headers.as_mut_ptr(), SLOTS as libc::c_uint, libc::MSG_DONTWAIT, nothing)
            };
            let now = if is_timed { monotonic_ns() } else { 0 };
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            for (number, message) in headers.iter().take(usize::try_from(received).unwrap_or(0)).enumerate() {
                let length = message.msg_len as usize;
                seen.bytes += length as u64;
                seen.datagrams += length.div_ceil(frame) as u64;
                // The kernel wrote through the pointers, so the bytes are read the same way.
                for at in (0..length).step_by(frame).filter(|_| is_timed && seen_room(&seen)).collect::<Vec<_>>() {
                    let mut stamp = [0; 8];
                    if at + header + 8 <= length {
                        // SAFETY: inside the slot, as just compared; `memory` outlives the loop.
                        let from = unsafe { vectors[number].iov_base.cast::<u8>().add(at + header) };
                        // SAFETY: eight bytes are there, see above.
                        unsafe { std::ptr::copy_nonoverlapping(from, stamp.as_mut_ptr(), 8) };
                        let took = now.saturating_sub(u64::from_be_bytes(stamp));
                        seen.times_ns.push(u32::try_from(took).unwrap_or(u32::MAX));
                    }
                }
            }
        }
    }
}

fn seen_room(seen: &Seen) -> bool {
    seen.times_ns.len() < MAX_TIMES
}

/// The clock of both ends, which are on one machine.
pub fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into the local value.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

//! TUN devices, UDP sockets and the threads around the packet path. The one crate with `unsafe`, which it needs for
//! system calls alone.

pub mod control;
pub mod delay_line;
pub mod event;
pub mod io_counters;
pub mod relay;
pub mod relay_offload;
mod socket_address;
pub mod threads;
pub mod tun;
pub mod udp;

use std::io;
use std::os::fd::RawFd;

/// The result of a system call, -1 being an error.
pub(crate) fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Waits until one of the descriptors has the events asked for, and returns which have any; after an interruption or the
/// timeout none has.
pub(crate) fn wait<const N: usize>(wanted: [(RawFd, libc::c_short); N], timeout_ms: i32) -> [libc::c_short; N] {
    let mut polled = wanted.map(|(fd, events)| libc::pollfd { fd, events, revents: 0 });
    // SAFETY: the array lives through the call and has N entries; negative descriptors are ignored by the kernel.
    unsafe { libc::poll(polled.as_mut_ptr(), N as libc::nfds_t, timeout_ms) };
    polled.map(|one| one.revents)
}

/// Monotonic seconds.
#[must_use]
pub fn monotonic() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: writes to a local; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

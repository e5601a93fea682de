//! Datagrams through sockets that the caller has opened and connected, by turns: the load of the relay benchmark.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::time::Duration;

use std::net::UdpSocket;

use crate::pace::Pace;
use crate::sink::monotonic_ns;

/// What one system call carries with segmentation offload: as much as Wardgate's own programs hand over, or less.
const SEGMENTS: usize = 40;
const MAX_SEND: usize = 64_000;

/// What a datagram looks like and how it is sent.
pub struct Blast {
    /// Payload bytes; the first eight say when it was sent.
    pub size: usize,
    /// Whether a header of channel 0x4000 stands in front.
    pub is_channel: bool,
    /// Whether many of one socket share a system call (UDP GSO).
    pub is_batched: bool,
    /// Datagrams a second; `None` is as many as there can be.
    pub rate: Option<f64>,
    pub lasts: Duration,
}

/// What the kernel took and what it refused.
#[derive(Default)]
pub struct Sent {
    pub sent: u64,
    pub refused: u64,
    pub lasted: Duration,
}

/// Sends until the time is over.
///
/// # Errors
/// There is no socket, or a socket cannot do segmentation.
pub fn run(blast: &Blast, descriptors: &[RawFd]) -> Result<Sent, String> {
    let sockets: Vec<UdpSocket> = descriptors
        .iter()
        // SAFETY: the caller has passed these descriptors on to us alone.
        .map(|fd| unsafe { UdpSocket::from_raw_fd(*fd) })
        .collect();
    let header = if blast.is_channel { 4 } else { 0 };
    let frame = header + blast.size;
    let most = if blast.is_batched { SEGMENTS.min(MAX_SEND / frame).max(1) } else { 1 };
    for socket in &sockets {
        segment(socket, if blast.is_batched { frame } else { 0 }).map_err(|error| format!("UDP_SEGMENT: {error}"))?;
    }
    let mut bytes = vec![0; frame * most];
    for one in bytes.chunks_exact_mut(frame) {
        if blast.is_channel {
            let length = u16::try_from(blast.size).map_err(|_| "too large".to_owned())?;
            one[..2].copy_from_slice(&0x4000_u16.to_be_bytes());
            one[2..4].copy_from_slice(&length.to_be_bytes());
        }
    }
    let mut pace = Pace::new(blast.rate.unwrap_or(1e12), blast.lasts);
    let mut sent = Sent::default();
    let mut turns = sockets.iter().cycle();
    while let Some(due) = pace.wait(most * 16) {
        let mut left = due;
        while left > 0 {
            let count = left.min(most);
            left -= count;
            let stamp = monotonic_ns().to_be_bytes();
            for one in bytes[..count * frame].chunks_exact_mut(frame) {
                one[header..header + 8].copy_from_slice(&stamp);
            }
            let socket = turns.next().ok_or("no sockets")?;
            match socket.send(&bytes[..count * frame]) {
                Ok(_) => sent.sent += count as u64,
                Err(_) => sent.refused += count as u64,
            }
        }
    }
    sent.lasted = pace.elapsed();
    Ok(sent)
}

fn segment(socket: &UdpSocket, size: usize) -> io::Result<()> {
    let size = libc::c_int::try_from(size).map_err(io::Error::other)?;
    let length = size_of_val(&size) as libc::socklen_t;
    // SAFETY: the option takes an int, and `size` is one.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, (&raw const size).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

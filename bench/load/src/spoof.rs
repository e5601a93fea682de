//! A flood of unauthenticated datagrams from random IPv4 sources, through a packet socket that the caller has opened.
//!
//! What a relay gets from strangers: Binding requests, Allocates without credentials, random bytes, and channel data that
//! belongs to nobody. UDP checksums are left out, which IPv4 allows.

use std::io;
use std::net::SocketAddrV4;
use std::os::fd::RawFd;
use std::time::Duration;

use crate::pace::Pace;

const HEADERS: usize = 14 + 20 + 8;
const MAX_PAYLOAD: usize = 200;
const SLOT: usize = HEADERS + MAX_PAYLOAD;
const BATCH: usize = 64;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];

/// What to send where.
pub struct Flood {
    pub fd: RawFd,
    pub ours: [u8; 6],
    pub theirs: [u8; 6],
    pub target: SocketAddrV4,
    pub count: u64,
    /// Datagrams a second; `None` is as many as there can be.
    pub rate: Option<f64>,
    /// Letters: `b`inding, `a`llocate, `g`arbage, `c`hannel data; by turns.
    pub kinds: Vec<u8>,
    pub seed: u64,
}

/// What the kernel took: datagrams, bytes of payload, and how long it lasted.
#[derive(Default)]
pub struct Sent {
    pub datagrams: u64,
    pub payload: u64,
    pub lasted: Duration,
}

/// Sends them all.
///
/// # Errors
/// The kernel refuses, for another reason than a full queue.
pub fn run(flood: &Flood) -> Result<Sent, String> {
    let mut random = Random(flood.seed | 1);
    let mut memory = vec![0_u8; SLOT * BATCH];
    let mut sent = Sent::default();
    let mut kinds = flood.kinds.iter().cycle();
    let mut pace = Pace::new(flood.rate.unwrap_or(1e12), Duration::from_secs(3600));
    while sent.datagrams < flood.count {
        let left = usize::try_from(flood.count - sent.datagrams).unwrap_or(BATCH).min(BATCH);
        let due = pace.wait(left).ok_or("it took an hour")?;
        let mut lengths = [0; BATCH];
        for (slot, length) in memory.chunks_exact_mut(SLOT).zip(&mut lengths).take(due) {
            let kind = kinds.next().ok_or("no kinds")?;
            let payload = fill(&mut slot[HEADERS..], *kind, &mut random);
            write_headers(slot, payload, flood, &mut random);
            *length = HEADERS + payload;
        }
        send_all(flood.fd, &mut memory, &lengths[..due]).map_err(|error| format!("sendmmsg: {error}"))?;
        sent.datagrams += due as u64;
        sent.payload += lengths[..due].iter().map(|length| (length - HEADERS) as u64).sum::<u64>();
    }
    sent.lasted = pace.elapsed();
    Ok(sent)
}

/// Writes a payload; gives its length.
fn fill(payload: &mut [u8], kind: u8, random: &mut Random) -> usize {
    match kind {
        b'b' | b'a' => {
            let is_binding = kind == b'b';
            payload[..4].copy_from_slice(&[0, if is_binding { 1 } else { 3 }, 0, if is_binding { 0 } else { 8 }]);
            payload[4..8].copy_from_slice(&COOKIE);
            payload[8..16].copy_from_slice(&random.next().to_be_bytes());
            payload[16..20].copy_from_slice(&random.next().to_be_bytes()[..4]);
            if is_binding {
                return 20;
            }
            payload[20..28].copy_from_slice(&[0, 0x19, 0, 4, 17, 0, 0, 0]); // REQUESTED-TRANSPORT: UDP
            28
        }
        b'c' => {
            let number = 0x4000 | (random.next() & 0x3fff) as u16;
            payload[..2].copy_from_slice(&number.to_be_bytes());
            payload[2..4].copy_from_slice(&100_u16.to_be_bytes());
            104
        }
        _ => {
            let length = 1 + (random.next() as usize) % MAX_PAYLOAD;
            for chunk in payload[..length].chunks_mut(8) {
                let bytes = random.next().to_be_bytes();
                chunk.copy_from_slice(&bytes[..chunk.len()]);
            }
            length
        }
    }
}

fn write_headers(slot: &mut [u8], payload: usize, flood: &Flood, random: &mut Random) {
    let bits = random.next();
    // 11.0.0.0 to 99.255.255.255: unicast, and none of the run's own networks.
    let source = [11 + (bits & 0xff) as u8 % 89, (bits >> 8) as u8, (bits >> 16) as u8, (bits >> 24) as u8];
    let port = (1024 + (bits >> 32) % 64_000) as u16;
    slot[..6].copy_from_slice(&flood.theirs);
    slot[6..12].copy_from_slice(&flood.ours);
    slot[12..14].copy_from_slice(&[8, 0]);
    let ip = &mut slot[14..34];
    ip.copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    ip[2..4].copy_from_slice(&((28 + payload) as u16).to_be_bytes());
    ip[12..16].copy_from_slice(&source);
    ip[16..20].copy_from_slice(&flood.target.ip().octets());
    let sum: u32 = ip.chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    let folded = (sum & 0xffff) + (sum >> 16);
    let checksum = !(((folded & 0xffff) + (folded >> 16)) as u16);
    ip[10..12].copy_from_slice(&checksum.to_be_bytes());
    slot[34..36].copy_from_slice(&port.to_be_bytes());
    slot[36..38].copy_from_slice(&flood.target.port().to_be_bytes());
    slot[38..40].copy_from_slice(&((8 + payload) as u16).to_be_bytes());
    slot[40..42].copy_from_slice(&[0, 0]);
}

fn send_all(fd: RawFd, memory: &mut [u8], lengths: &[usize]) -> io::Result<()> {
    let mut vectors: Vec<libc::iovec> = memory
        .chunks_exact_mut(SLOT)
        .zip(lengths)
        .map(|(slot, length)| libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: *length })
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
    let mut done = 0;
    while done < headers.len() {
        let rest = &mut headers[done..];
        // SAFETY: the headers and what they point to are alive.
        let sent = unsafe { libc::sendmmsg(fd, rest.as_mut_ptr(), rest.len() as libc::c_uint, 0) };
        match usize::try_from(sent) {
            Ok(more) => done += more,
            Err(_) => {
                let error = io::Error::last_os_error();
                if !matches!(error.raw_os_error(), Some(libc::ENOBUFS | libc::EAGAIN | libc::EINTR)) {
                    return Err(error);
                }
                std::thread::yield_now();
            }
        }
    }
    Ok(())
}

/// xorshift64*: fast, and the same flood for the same seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_right() {
        let flood = Flood {
            fd: -1,
            ours: [2; 6],
            theirs: [4; 6],
            target: "192.0.2.1:3478".parse().unwrap(),
            count: 1,
            rate: None,
            kinds: vec![b'a'],
            seed: 1,
        };
        let mut random = Random(1);
        let mut slot = vec![0; SLOT];
        let payload = fill(&mut slot[HEADERS..], b'a', &mut random);
        write_headers(&mut slot, payload, &flood, &mut random);
        let sum: u32 = slot[14..34].chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
        assert_eq!((sum & 0xffff) + (sum >> 16), 0xffff);
        assert_eq!(&slot[16..18], &[0, 56]);
        assert_eq!(&slot[30..34], &[192, 0, 2, 1]);
        assert_eq!(&slot[36..40], &[0x0d, 0x96, 0, 36]);
    }
}

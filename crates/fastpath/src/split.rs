//! A super-packet of the TUN device, cut into the packets that it stands for.

use crate::checksum;
use crate::packet::{CWR, FIN, Headers, PSH, TCP, UDP, u16_at, u32_at};
use crate::virtio::{Gso, VnetHeader};

/// More segments than this come only from a header that lies.
const MAX_SEGMENTS: usize = 2048;

/// The header does not fit the packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BadOffload;

/// How to cut one super-packet.
#[derive(Debug, Clone, Copy)]
pub struct Split {
    headers: Headers,
    segment_size: usize,
    pub segments: usize,
}

impl Split {
    /// Checks that `header` fits the packet.
    ///
    /// # Errors
    /// If it asks for a kind, a size or a number of segments that cannot be.
    pub fn new(header: &VnetHeader, headers: &Headers) -> Result<Self, BadOffload> {
        let is_right_kind = match header.gso {
            Gso::Tcp4 => headers.protocol == TCP && !headers.is_v6,
            Gso::Tcp6 => headers.protocol == TCP && headers.is_v6,
            Gso::Udp => headers.protocol == UDP,
            Gso::None | Gso::Other => false,
        };
        let segment_size = usize::from(header.segment_size);
        if !is_right_kind || segment_size == 0 {
            return Err(BadOffload);
        }
        let segments = (headers.len - headers.payload).div_ceil(segment_size).max(1);
        if segments > MAX_SEGMENTS {
            return Err(BadOffload);
        }
        Ok(Self { headers: *headers, segment_size, segments })
    }

    /// The length of segment `index` as an IP packet.
    #[must_use]
    pub fn len(&self, index: usize) -> usize {
        self.headers.payload + self.payload(index).len()
    }

    /// The length of the longest segment.
    #[must_use]
    pub fn longest(&self) -> usize {
        self.len(0)
    }

    /// The sum of all segments' lengths.
    #[must_use]
    pub fn total(&self) -> usize {
        self.headers.len + (self.segments - 1) * self.headers.payload
    }

    fn payload(&self, index: usize) -> std::ops::Range<usize> {
        let start = self.headers.payload + index * self.segment_size;
        start..(start + self.segment_size).min(self.headers.len)
    }

    /// Writes segment `index` of `packet` into `out`, which has its length, with lengths, ids, flags and checksums right.
    pub fn write(&self, packet: &[u8], index: usize, out: &mut [u8]) {
        let Headers { transport, payload, is_v6, protocol, .. } = self.headers;
        out[..payload].copy_from_slice(&packet[..payload]);
        out[payload..].copy_from_slice(&packet[self.payload(index)]);
        let len = out.len();
        if is_v6 {
            out[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        } else {
            out[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            let id = u16_at(packet, 4).wrapping_add(index as u16);
            out[4..6].copy_from_slice(&id.to_be_bytes());
            out[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&out[..transport]));
            out[10..12].copy_from_slice(&sum);
        }
        let transport_len = len - transport;
        let pseudo = checksum::pseudo_header(&packet[self.headers.addresses()], protocol, transport_len);
        let segment = &mut out[transport..];
        if protocol == TCP {
            let sequence = u32_at(segment, 4).wrapping_add((index * self.segment_size) as u32);
            segment[4..8].copy_from_slice(&sequence.to_be_bytes());
            if index + 1 < self.segments {
                segment[13] &= !(FIN | PSH);
            }
            if index > 0 {
                segment[13] &= !CWR;
            }
            segment[16..18].fill(0);
            let sum = checksum::finish(pseudo + checksum::sum(segment));
            segment[16..18].copy_from_slice(&sum);
        } else {
            segment[4..6].copy_from_slice(&(transport_len as u16).to_be_bytes());
            segment[6..8].fill(0);
            let sum = checksum::finish_udp(pseudo + checksum::sum(segment));
            segment[6..8].copy_from_slice(&sum);
        }
    }
}

/// Completes the checksum that the kernel left to the device.
///
/// # Errors
/// If the header points outside of the packet.
pub fn finish_checksum(header: &VnetHeader, packet: &mut [u8]) -> Result<(), BadOffload> {
    let start = usize::from(header.checksum_start);
    let at = start + usize::from(header.checksum_offset);
    if start >= packet.len() || at + 2 > packet.len() {
        return Err(BadOffload);
    }
    let sum = checksum::sum(&packet[start..]);
    let field = if header.checksum_offset == 6 { checksum::finish_udp(sum) } else { checksum::finish(sum) };
    packet[at..at + 2].copy_from_slice(&field);
    Ok(())
}

//! Packets for the TUN device, joined into super-packets where the kernel can cut them again.
//!
//! Nothing is copied: a super-packet is a list of slices of the arena that the packets were opened in. Packets of one flow
//! keep their order; only packets that the kernel's own GRO would join are joined.

use std::ops::Range;

use crate::checksum;
use crate::packet::{ACK, Headers, PSH, TCP, UDP, u16_at, u32_at};
use crate::virtio::{Gso, VNET_HEADER_LEN, VnetHeader};

/// How many of the newest super-packets are searched for one to extend.
const LOOK_BACK: usize = 16;
const MAX_LEN: usize = 65535;
/// Keeps one write below the kernel's limit of slices; the kernel itself stops at 128 for UDP.
const MAX_PACKETS: usize = 127;

/// Which kinds of super-packets may be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offloads {
    pub tcp: bool,
    pub udp: bool,
}

/// Identifies a flow within one batch.
pub type FlowToken = usize;

/// One write to the TUN device.
#[derive(Debug, Default)]
pub struct Super {
    pub vnet: [u8; VNET_HEADER_LEN],
    /// Slices of the arena, the first with all headers.
    pub slices: Vec<Range<usize>>,
    flow: FlowToken,
    open: Option<Open>,
}

/// What the next packet must fit.
#[derive(Debug, Clone, Copy)]
struct Open {
    headers: Headers,
    segment: usize,
    next_sequence: u32,
    len: usize,
    is_pushed: bool,
    is_closed: bool,
}

pub struct Coalescer {
    offloads: Offloads,
    supers: Vec<Super>,
    used: usize,
}

impl Coalescer {
    #[must_use]
    pub fn new(offloads: Offloads) -> Self {
        Self { offloads, supers: Vec::new(), used: 0 }
    }

    pub fn set_offloads(&mut self, offloads: Offloads) {
        self.offloads = offloads;
    }

    /// Adds the packet at `start` of `arena`; `headers` are its headers.
    pub fn push(&mut self, arena: &[u8], start: usize, headers: &Headers, flow: FlowToken) {
        let packet = &arena[start..start + headers.len];
        let open = self.opening(packet, headers);
        let newest = (self.used.saturating_sub(LOOK_BACK)..self.used).rev().find(|at| self.supers[*at].flow == flow);
        if let (Some(at), Some(candidate)) = (newest, open) {
            let target = &mut self.supers[at];
            let first = target.slices[0].start;
            if let Some(joined) = target.open.and_then(|open| open.joined(&arena[first..], packet, &candidate, target))
            {
                target.open = Some(joined);
                target.slices.push(start + headers.payload..start + headers.len);
                return;
            }
        }
        self.begin(start..start + headers.len, flow, open);
    }

    fn begin(&mut self, packet: Range<usize>, flow: FlowToken, open: Option<Open>) {
        if self.used == self.supers.len() {
            self.supers.push(Super::default());
        }
        let fresh = &mut self.supers[self.used];
        self.used += 1;
        fresh.vnet = [0; VNET_HEADER_LEN];
        fresh.slices.clear();
        fresh.slices.push(packet);
        fresh.flow = flow;
        fresh.open = open;
    }

    /// How many super-packets wait to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.used
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// How many super-packets, from the oldest, are as they will be: all, but for the newest if a packet may still join it.
    #[must_use]
    pub fn closed(&self) -> usize {
        let newest = self.supers[..self.used].last();
        self.used - usize::from(newest.is_some_and(|newest| newest.open.is_some_and(|open| open.has_room(newest))))
    }

    /// Completes the headers of the oldest `upto` super-packets and returns them in order.
    pub fn finish(&mut self, upto: usize, arena: &mut [u8]) -> &[Super] {
        for one in &mut self.supers[..upto] {
            if let (Some(open), true) = (one.open, one.slices.len() > 1) {
                one.vnet = open.write_headers(&mut arena[one.slices[0].start..]);
            }
        }
        &self.supers[..upto]
    }

    /// Forgets the oldest `count`.
    pub fn discard(&mut self, count: usize) {
        self.supers[..self.used].rotate_left(count);
        self.used -= count;
    }

    /// The packet as the first of a super-packet, if it may be one: a whole, plain segment with a right checksum.
    fn opening(&self, packet: &[u8], headers: &Headers) -> Option<Open> {
        let payload = headers.len - headers.payload;
        if payload == 0 || (!headers.is_v6 && headers.transport != 20) {
            return None;
        }
        let transport = &packet[headers.transport..];
        let (mut next_sequence, mut is_pushed) = (0, false);
        match headers.protocol {
            TCP if self.offloads.tcp && matches!(headers.tcp_flags, ACK | 0x18) => {
                next_sequence = u32_at(transport, 4).wrapping_add(payload as u32);
                is_pushed = headers.tcp_flags & PSH != 0;
            }
            UDP if self.offloads.udp
                && u16_at(transport, 6) != 0
                && usize::from(u16_at(transport, 4)) == transport.len() => {}
            _ => return None,
        }
        let pseudo = checksum::pseudo_header(&packet[headers.addresses()], headers.protocol, transport.len());
        let is_right = checksum::is_valid(pseudo + checksum::sum(transport))
            && (headers.is_v6 || checksum::is_valid(checksum::sum(&packet[..20])));
        is_right.then_some(Open {
            headers: *headers,
            segment: payload,
            next_sequence,
            len: headers.len,
            is_pushed,
            is_closed: is_pushed,
        })
    }
}

impl Open {
    /// Whether a packet as long as the others may join.
    fn has_room(&self, one: &Super) -> bool {
        !self.is_closed && self.len + self.segment <= MAX_LEN && one.slices.len() < MAX_PACKETS
    }

    /// This super-packet with `packet` behind it, if it may follow; `first` starts with the first packet.
    fn joined(&self, first: &[u8], packet: &[u8], next: &Open, target: &Super) -> Option<Self> {
        let count = target.slices.len();
        let payload = next.segment;
        let fits = !self.is_closed
            && payload <= self.segment
            && self.len + payload <= MAX_LEN
            && count < MAX_PACKETS
            && self.headers.protocol == next.headers.protocol
            && self.headers.payload == next.headers.payload
            && same_ip_header(first, packet, self.headers.is_v6, count);
        let follows = match self.headers.protocol {
            TCP => {
                let (a, b) = (&first[self.headers.transport..self.headers.payload], &packet[self.headers.transport..]);
                // Acknowledgement, reserved bits, window and options; the flags were checked for each packet.
                u32_at(b, 4) == self.next_sequence
                    && a[8..13] == b[8..13]
                    && a[14..16] == b[14..16]
                    && a[18..] == b[18..a.len()]
            }
            _ => true,
        };
        (fits && follows).then_some(Self {
            len: self.len + payload,
            next_sequence: next.next_sequence,
            is_pushed: next.is_pushed,
            is_closed: next.is_pushed || payload < self.segment,
            ..*self
        })
    }

    /// Makes the first packet's headers those of the super-packet.
    fn write_headers(&self, packet: &mut [u8]) -> [u8; VNET_HEADER_LEN] {
        let Headers { is_v6, protocol, transport, payload, .. } = self.headers;
        if is_v6 {
            packet[4..6].copy_from_slice(&((self.len - 40) as u16).to_be_bytes());
        } else {
            packet[2..4].copy_from_slice(&(self.len as u16).to_be_bytes());
            packet[10..12].fill(0);
            let sum = checksum::finish(checksum::sum(&packet[..20]));
            packet[10..12].copy_from_slice(&sum);
        }
        let pseudo = checksum::pseudo_header(&packet[self.headers.addresses()], protocol, self.len - transport);
        let (gso, checksum_offset) = match (protocol, is_v6) {
            (TCP, false) => (Gso::Tcp4, 16),
            (TCP, true) => (Gso::Tcp6, 16),
            _ => (Gso::Udp, 6),
        };
        if protocol == TCP {
            packet[transport + 13] |= if self.is_pushed { PSH } else { 0 };
        } else {
            packet[transport + 4..transport + 6].copy_from_slice(&((self.len - transport) as u16).to_be_bytes());
        }
        let at = transport + checksum_offset;
        // The kernel wants the pseudo-header's sum here, not complemented, and adds the rest.
        packet[at..at + 2].copy_from_slice(&checksum::fold(pseudo).to_ne_bytes());
        VnetHeader {
            needs_checksum: true,
            gso,
            header_len: payload as u16,
            segment_size: self.segment as u16,
            checksum_start: transport as u16,
            checksum_offset: checksum_offset as u16,
        }
        .encode()
    }
}

/// Whether all that a cut would copy is equal: TOS, TTL, flags, flow label; and ids that a cut would make.
fn same_ip_header(first: &[u8], packet: &[u8], is_v6: bool, count: usize) -> bool {
    if is_v6 {
        return first[..4] == packet[..4] && first[7] == packet[7];
    }
    let may_have_any_id = first[6] & 0x40 != 0;
    first[1] == packet[1]
        && first[6..9] == packet[6..9]
        && (may_have_any_id || u16_at(first, 4).wrapping_add(count as u16) == u16_at(packet, 4))
}

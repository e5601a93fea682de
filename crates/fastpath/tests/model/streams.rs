//! Streams of packets as hosts send them, now and then with something out of the ordinary.

use std::net::SocketAddr;

use super::choices::Choices;
use super::wire::{ACK, CWR, DONT_FRAGMENT, ECE, FIN, Ip, PSH, Packet, RST, SYN, Tcp, Transport, URG};

/// What the flags of a segment without data to hide may be.
const ODD_FLAGS: [u8; 12] = [
    ACK | FIN,
    SYN,
    SYN | ACK,
    RST,
    RST | ACK,
    ACK | PSH,
    ACK | URG,
    ACK | ECE,
    ACK | CWR,
    ACK | PSH | FIN,
    ACK | ECE | CWR,
    0,
];

/// IPv4 options that may pass: no-operation, router alert, record route, time stamps, end of list.
const OPTIONS: [&[u8]; 5] =
    [&[], &[1, 1, 1, 0], &[148, 4, 0, 0], &[7, 7, 4, 0, 0, 0, 0, 0], &[1, 68, 8, 5, 0, 0, 0, 0, 0, 0, 0, 0]];
const TCP_OPTIONS: [&[u8]; 4] = [
    &[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
    &[],
    &[1, 1, 8, 10, 0, 0, 0, 9, 0, 0, 0, 2],
    &[1, 1, 5, 10, 0, 0, 0, 1, 0, 0, 0, 2],
];

pub enum Kind {
    Tcp,
    Udp,
    Echo { is_reply: bool },
}

/// One flow in one direction, and the packet that comes next.
pub struct Stream {
    next: Packet,
    segment: usize,
}

impl Stream {
    pub fn new(choices: &mut Choices, source: SocketAddr, destination: SocketAddr, kind: Kind) -> Self {
        let ip = if source.is_ipv6() {
            Ip::V6 { class: choices.pick(&[0, 2, 3, 0xb8]), label: choices.pick(&[0, 0x12345]), hop_limit: 64 }
        } else {
            let flags = choices.pick(&[DONT_FRAGMENT, 0]);
            let options = if choices.one_in(8) { choices.pick(&OPTIONS[1..]).to_vec() } else { Vec::new() };
            Ip::V4 { tos: choices.pick(&[2, 0, 3, 0x28]), id: choices.word(), flags, ttl: 64, options }
        };
        let transport = match kind {
            Kind::Tcp => Transport::Tcp(Tcp {
                sequence: choices.pick(&[0xffff_f000, 1, 0x7fff_ffff]),
                acknowledgement: 77,
                reserved: 0,
                flags: ACK,
                window: 500,
                urgent: 0,
                options: choices.pick(&TCP_OPTIONS[..2]).to_vec(),
            }),
            Kind::Udp => Transport::Udp,
            Kind::Echo { is_reply } => Transport::Echo { is_reply, sequence: 0 },
        };
        let segment = choices.pick(&[100, 1, 40, 1200]);
        Self { next: Packet { source, destination, ip, transport, payload: Vec::new() }, segment }
    }

    pub fn protocol(&self) -> u8 {
        self.next.protocol()
    }

    /// The next packet, with as much payload as all of its stream have, or less, or none.
    pub fn packet(&mut self, choices: &mut Choices) -> Packet {
        let len = match choices.within(0..=15) {
            12 => self.segment / 2,
            13 => 0,
            14 => self.segment + 20,
            15 => 1,
            _ => self.segment,
        };
        let mut packet = self.with_payload(choices, len);
        if choices.one_in(16) {
            packet = packet.summing_to_zero();
        }
        if choices.one_in(6) {
            deviate(choices, &mut packet);
            if choices.flag() {
                self.go_on_as(&packet);
            }
        }
        packet
    }

    /// The next packet without anything odd about it.
    pub fn plain(&mut self, choices: &mut Choices) -> Packet {
        self.with_payload(choices, self.segment)
    }

    /// The next super-packet and its segment size.
    pub fn super_packet(&mut self, choices: &mut Choices) -> (Packet, u16) {
        let most = 65_535 - self.next.header_len();
        let len = match choices.within(0..=15) {
            14 => most,
            15 => choices.within(0..=most),
            _ => choices.within(1..=8_000),
        };
        let size = match choices.within(0..=7) {
            0 => choices.within(1..=100),
            1 => choices.within(1..=65_535),
            _ => self.segment + 1,
        };
        let mut whole = self.with_payload(choices, len);
        if let Some(tcp) = whole.tcp() {
            tcp.flags |= choices.pick(&[0, PSH, FIN, PSH | FIN, CWR, ECE, URG, PSH | CWR]);
            tcp.urgent = if tcp.flags & URG == 0 { 0 } else { 9 };
        }
        (whole, size as u16)
    }

    fn with_payload(&mut self, choices: &mut Choices, len: usize) -> Packet {
        let packet = self.next.around(choices.contents(len));
        match &mut self.next.transport {
            Transport::Tcp(tcp) => tcp.sequence = tcp.sequence.wrapping_add(len as u32),
            Transport::Echo { sequence, .. } => *sequence = sequence.wrapping_add(1),
            Transport::Udp => {}
        }
        if let Ip::V4 { id, .. } = &mut self.next.ip {
            *id = id.wrapping_add(1);
        }
        packet
    }

    fn go_on_as(&mut self, odd: &Packet) {
        let flags = self.next.tcp().map(|tcp| tcp.flags);
        let len = odd.payload.len();
        self.next = odd.around(Vec::new());
        if let (Some(tcp), Some(flags)) = (self.next.tcp(), flags) {
            tcp.flags = flags;
            tcp.sequence = tcp.sequence.wrapping_add(len as u32);
        }
        if let Ip::V4 { id, .. } = &mut self.next.ip {
            *id = id.wrapping_add(1);
        }
    }
}

/// Changes one thing about a packet.
fn deviate(choices: &mut Choices, packet: &mut Packet) {
    let which = choices.within(0..=15);
    match &mut packet.ip {
        Ip::V4 { tos, id, flags, ttl, options } => match which {
            0 => *tos = choices.byte(),
            1 => *ttl = choices.pick(&[63, 1]),
            2 => *flags = choices.pick(&[0b000, 0b010, 0b100, 0b110]),
            3 => *id = id.wrapping_add(choices.pick(&[1, 0xffff, 7])),
            4 => *options = choices.pick(&OPTIONS).to_vec(),
            _ => {}
        },
        Ip::V6 { class, label, hop_limit } => match which {
            0 => *class = choices.byte(),
            1 => *hop_limit = choices.pick(&[63, 1]),
            2..=4 => *label = choices.long() & 0xf_ffff,
            _ => {}
        },
    }
    let Some(tcp) = packet.tcp() else { return };
    match which {
        5..=7 => tcp.flags = choices.pick(&ODD_FLAGS),
        8 => tcp.reserved = choices.byte() & 15,
        9 => tcp.acknowledgement = tcp.acknowledgement.wrapping_add(choices.pick(&[1, 1000])),
        10 => tcp.window = choices.word(),
        11 => tcp.urgent = choices.word(),
        12 | 13 => tcp.sequence = tcp.sequence.wrapping_add(choices.pick(&[100, 0xffff_ff9c, 1, 0x8000_0000])),
        14 => tcp.options = choices.pick(&TCP_OPTIONS).to_vec(),
        15 => {
            tcp.flags |= URG;
            tcp.urgent = 1;
        }
        _ => {}
    }
}

//! IP packets as plain values, written and read field by field.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const URG: u8 = 0x20;
pub const ECE: u8 = 0x40;
pub const CWR: u8 = 0x80;

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

/// One packet. For an echo both ports are the identifier.
#[derive(Clone, PartialEq, Eq)]
pub struct Packet {
    pub source: SocketAddr,
    pub destination: SocketAddr,
    pub ip: Ip,
    pub transport: Transport,
    pub payload: Vec<u8>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ip {
    V4 { tos: u8, id: u16, flags: u8, ttl: u8, options: Vec<u8> },
    V6 { class: u8, label: u32, hop_limit: u8 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transport {
    Tcp(Tcp),
    Udp,
    Echo { is_reply: bool, sequence: u16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcp {
    pub sequence: u32,
    pub acknowledgement: u32,
    /// The four bits behind the data offset, of which one is AE, formerly NS.
    pub reserved: u8,
    pub flags: u8,
    pub window: u16,
    pub urgent: u16,
    pub options: Vec<u8>,
}

impl std::fmt::Debug for Packet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { source, destination, ip, transport, payload } = self;
        let (len, sum) = (payload.len(), checksum(&[payload]));
        write!(f, "{source} > {destination} {ip:?} {transport:?} payload of {len}, sum {sum:04x}")
    }
}

pub const DONT_FRAGMENT: u8 = 0b010;

impl Packet {
    pub fn is_v6(&self) -> bool {
        matches!(self.ip, Ip::V6 { .. })
    }

    pub fn protocol(&self) -> u8 {
        match self.transport {
            Transport::Tcp(_) => TCP,
            Transport::Udp => UDP,
            Transport::Echo { .. } => {
                if self.is_v6() {
                    ICMPV6
                } else {
                    ICMP
                }
            }
        }
    }

    pub fn tcp(&mut self) -> Option<&mut Tcp> {
        match &mut self.transport {
            Transport::Tcp(tcp) => Some(tcp),
            _ => None,
        }
    }

    /// The same packet around another payload.
    pub fn around(&self, payload: Vec<u8>) -> Self {
        Self {
            source: self.source,
            destination: self.destination,
            ip: self.ip.clone(),
            transport: self.transport.clone(),
            payload,
        }
    }

    /// The same packet with the start of its payload such that its checksum comes out as zero, if it has so much of it.
    pub fn summing_to_zero(&self) -> Self {
        let mut packet = self.clone();
        if packet.payload.len() < 2 || matches!(packet.transport, Transport::Echo { .. }) {
            return packet;
        }
        packet.payload[..2].fill(0);
        let missing =
            !checksum(&[&packet.pseudo_header(packet.len() - packet.ip_header_len()), &packet.encode_transport()]);
        packet.payload[..2].copy_from_slice(&(!missing).to_be_bytes());
        packet
    }

    pub fn ip_header_len(&self) -> usize {
        match &self.ip {
            Ip::V4 { options, .. } => 20 + options.len(),
            Ip::V6 { .. } => 40,
        }
    }

    pub fn header_len(&self) -> usize {
        let transport = match &self.transport {
            Transport::Tcp(tcp) => 20 + tcp.options.len(),
            Transport::Udp | Transport::Echo { .. } => 8,
        };
        self.ip_header_len() + transport
    }

    pub fn len(&self) -> usize {
        self.header_len() + self.payload.len()
    }

    pub fn ecn(&self) -> u8 {
        match self.ip {
            Ip::V4 { tos: byte, .. } | Ip::V6 { class: byte, .. } => byte & 3,
        }
    }

    pub fn set_ecn(&mut self, ecn: u8) {
        match &mut self.ip {
            Ip::V4 { tos: byte, .. } | Ip::V6 { class: byte, .. } => *byte = *byte & 0xfc | ecn,
        }
    }

    /// The bytes, with every length and checksum right.
    pub fn encode(&self) -> Vec<u8> {
        let mut transport = self.encode_transport();
        let at = match self.transport {
            Transport::Tcp(_) => 16,
            Transport::Udp => 6,
            Transport::Echo { .. } => 2,
        };
        let mut field = checksum(&[&self.pseudo_header(transport.len()), &transport]);
        if field == 0 && self.protocol() == UDP {
            field = 0xffff;
        }
        transport[at..at + 2].copy_from_slice(&field.to_be_bytes());
        let mut bytes = self.encode_ip(transport.len());
        bytes.extend(transport);
        bytes
    }

    /// The sum that a host leaves in the checksum field for its device to complete.
    pub fn partial_checksum(&self) -> u16 {
        !checksum(&[&self.pseudo_header(self.len() - self.ip_header_len())])
    }

    fn pseudo_header(&self, transport_len: usize) -> Vec<u8> {
        if self.protocol() == ICMP {
            return Vec::new();
        }
        let mut bytes = octets(self.source.ip());
        bytes.extend(octets(self.destination.ip()));
        bytes.extend((transport_len as u32).to_be_bytes());
        bytes.extend([0, 0, 0, self.protocol()]);
        bytes
    }

    fn encode_ip(&self, transport_len: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        match &self.ip {
            Ip::V4 { tos, id, flags, ttl, options } => {
                assert!(options.len() <= 40 && options.len() % 4 == 0);
                bytes.extend([0x40 | (5 + options.len() / 4) as u8, *tos]);
                bytes.extend(((20 + options.len() + transport_len) as u16).to_be_bytes());
                bytes.extend(id.to_be_bytes());
                bytes.extend([flags << 5, 0, *ttl, self.protocol(), 0, 0]);
                bytes.extend(octets(self.source.ip()));
                bytes.extend(octets(self.destination.ip()));
                bytes.extend(options);
                let sum = checksum(&[&bytes]);
                bytes[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Ip::V6 { class, label, hop_limit } => {
                bytes.extend((6 << 28 | u32::from(*class) << 20 | label & 0xf_ffff).to_be_bytes());
                bytes.extend((transport_len as u16).to_be_bytes());
                bytes.extend([self.protocol(), *hop_limit]);
                bytes.extend(octets(self.source.ip()));
                bytes.extend(octets(self.destination.ip()));
            }
        }
        bytes
    }

    fn encode_transport(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let (source, destination) = (self.source.port().to_be_bytes(), self.destination.port().to_be_bytes());
        match &self.transport {
            Transport::Tcp(tcp) => {
                assert!(tcp.options.len() <= 40 && tcp.options.len() % 4 == 0);
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend(tcp.sequence.to_be_bytes());
                bytes.extend(tcp.acknowledgement.to_be_bytes());
                bytes.extend([((5 + tcp.options.len() / 4) as u8) << 4 | tcp.reserved & 15, tcp.flags]);
                bytes.extend(tcp.window.to_be_bytes());
                bytes.extend([0, 0]);
                bytes.extend(tcp.urgent.to_be_bytes());
                bytes.extend(&tcp.options);
            }
            Transport::Udp => {
                bytes.extend(source);
                bytes.extend(destination);
                bytes.extend(((8 + self.payload.len()) as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            Transport::Echo { is_reply, sequence } => {
                let kind = match (self.is_v6(), is_reply) {
                    (false, false) => 8,
                    (false, true) => 0,
                    (true, false) => 128,
                    (true, true) => 129,
                };
                bytes.extend([kind, 0, 0, 0]);
                bytes.extend(source);
                bytes.extend(sequence.to_be_bytes());
            }
        }
        bytes.extend(&self.payload);
        bytes
    }

    /// Reads a whole TCP, UDP or echo packet whose lengths are right; its checksums are not looked at.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (ip, protocol, header_len, addresses) = decode_ip(bytes)?;
        let rest = bytes.get(header_len..)?;
        let word = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
        let long = |at: usize| Some(u32::from_be_bytes(rest.get(at..at + 4)?.try_into().ok()?));
        let is_v6 = matches!(ip, Ip::V6 { .. });
        let (transport, ports, len) = match protocol {
            TCP => {
                let len = usize::from(rest.get(12)? >> 4) * 4;
                let tcp = Tcp {
                    sequence: long(4)?,
                    acknowledgement: long(8)?,
                    reserved: rest[12] & 15,
                    flags: *rest.get(13)?,
                    window: word(14)?,
                    urgent: word(18)?,
                    options: rest.get(20..len)?.to_vec(),
                };
                (Transport::Tcp(tcp), (word(0)?, word(2)?), len)
            }
            UDP if usize::from(word(4)?) == rest.len() => (Transport::Udp, (word(0)?, word(2)?), 8),
            ICMP | ICMPV6 if (protocol == ICMPV6) == is_v6 => {
                let is_reply = match (is_v6, rest.first()?, rest.get(1)?) {
                    (false, 8, 0) | (true, 128, 0) => false,
                    (false, 0, 0) | (true, 129, 0) => true,
                    _ => return None,
                };
                (Transport::Echo { is_reply, sequence: word(6)? }, (word(4)?, word(4)?), 8)
            }
            _ => return None,
        };
        let source = SocketAddr::new(addresses.0, ports.0);
        let destination = SocketAddr::new(addresses.1, ports.1);
        Some(Self { source, destination, ip, transport, payload: rest.get(len..)?.to_vec() })
    }
}

fn decode_ip(bytes: &[u8]) -> Option<(Ip, u8, usize, (IpAddr, IpAddr))> {
    let word = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    match bytes.first()? >> 4 {
        4 => {
            let len = usize::from(bytes[0] & 15) * 4;
            let options = bytes.get(20..len)?.to_vec();
            let flags = bytes[6] >> 5;
            if usize::from(word(2)?) != bytes.len() || word(6)? & 0x3fff != 0 {
                return None;
            }
            let address = |at: usize| IpAddr::V4(Ipv4Addr::new(bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]));
            let ip = Ip::V4 { tos: bytes[1], id: word(4)?, flags, ttl: bytes[8], options };
            Some((ip, bytes[9], len, (address(12), address(16))))
        }
        6 => {
            let first = u32::from_be_bytes(bytes.get(..4)?.try_into().ok()?);
            if bytes.len() < 40 || 40 + usize::from(word(4)?) != bytes.len() {
                return None;
            }
            let address = |at: usize| {
                let octets: [u8; 16] = bytes[at..at + 16].try_into().ok()?;
                Some(IpAddr::V6(Ipv6Addr::from(octets)))
            };
            let ip = Ip::V6 { class: (first >> 20) as u8, label: first & 0xf_ffff, hop_limit: bytes[7] };
            Some((ip, bytes[6], 40, (address(8)?, address(24)?)))
        }
        _ => None,
    }
}

pub fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

/// Byte by byte, as RFC 1071 tells it.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut total = 0u32;
    for (at, byte) in parts.iter().flat_map(|part| part.iter()).enumerate() {
        total += u32::from(*byte) << if at % 2 == 0 { 8 } else { 0 };
        total = (total & 0xffff) + (total >> 16);
    }
    !(total as u16)
}

/// Whose packet this is: addresses, protocol and what stands where ports stand.
pub fn flow_of(bytes: &[u8]) -> Vec<u8> {
    let (header_len, protocol, addresses) = match bytes[0] >> 4 {
        4 => (usize::from(bytes[0] & 15) * 4, bytes[9], &bytes[12..20]),
        _ => (40, bytes[6], &bytes[8..40]),
    };
    let ports = bytes.get(header_len..header_len + 4).unwrap_or_default();
    [&[protocol], addresses, ports].concat()
}

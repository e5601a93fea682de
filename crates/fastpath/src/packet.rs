//! IP packets as the flow table sees them: where the headers are, and which flow they belong to.

use std::net::{IpAddr, SocketAddr};

pub const ICMP: u8 = 1;
pub const TCP: u8 = 6;
pub const UDP: u8 = 17;
pub const ICMPV6: u8 = 58;

pub const FIN: u8 = 0x01;
pub const SYN: u8 = 0x02;
pub const RST: u8 = 0x04;
pub const PSH: u8 = 0x08;
pub const ACK: u8 = 0x10;
pub const CWR: u8 = 0x80;

/// Why a packet is not forwarded by anyone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PacketError {
    Malformed,
    Fragmented,
    /// An IPv6 extension header, which could hide a transport header from a filter.
    ExtensionHeader,
    /// An IPv4 source route, which would send the packet past the destination that was allowed.
    SourceRouted,
}

/// What a flow is looked up by: addresses, ports (ICMP echo: the identifier twice) and protocol of one direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FlowKey {
    source: [u8; 16],
    destination: [u8; 16],
    source_port: u16,
    destination_port: u16,
    protocol: u8,
    /// Bit 0: IPv6; bit 1: an echo reply.
    kind: u8,
}

impl FlowKey {
    /// `None` if the addresses are of different families.
    #[must_use]
    pub fn new(protocol: u8, source: SocketAddr, destination: SocketAddr, is_echo_reply: bool) -> Option<Self> {
        (source.is_ipv6() == destination.is_ipv6()).then(|| Self {
            source: octets(source.ip()),
            destination: octets(destination.ip()),
            source_port: source.port(),
            destination_port: destination.port(),
            protocol,
            kind: u8::from(source.is_ipv6()) | u8::from(is_echo_reply) << 1,
        })
    }

    #[must_use]
    pub fn protocol(&self) -> u8 {
        self.protocol
    }

    #[must_use]
    pub fn is_echo_reply(&self) -> bool {
        self.kind & 2 != 0
    }

    #[must_use]
    pub fn source(&self) -> SocketAddr {
        SocketAddr::new(self.ip(&self.source), self.source_port)
    }

    #[must_use]
    pub fn destination(&self) -> SocketAddr {
        SocketAddr::new(self.ip(&self.destination), self.destination_port)
    }

    fn ip(&self, octets: &[u8; 16]) -> IpAddr {
        if self.kind & 1 == 0 {
            IpAddr::from([octets[0], octets[1], octets[2], octets[3]])
        } else {
            IpAddr::from(*octets)
        }
    }

    /// The addresses' bytes, as many as their family has.
    fn addresses(&self) -> (&[u8], &[u8]) {
        let len = if self.kind & 1 == 0 { 4 } else { 16 };
        (&self.source[..len], &self.destination[..len])
    }

    /// Source and destination as they lie in an IP header; IPv4 uses the first 8 bytes.
    #[must_use]
    pub fn address_bytes(&self) -> [u8; 32] {
        let mut bytes = [0; 32];
        let (source, destination) = self.addresses();
        bytes[..source.len()].copy_from_slice(source);
        bytes[source.len()..2 * source.len()].copy_from_slice(destination);
        bytes
    }

    /// The ports as they lie in a transport header.
    #[must_use]
    pub fn port_bytes(&self) -> [u8; 4] {
        let ([a, b], [c, d]) = (self.source_port.to_be_bytes(), self.destination_port.to_be_bytes());
        [a, b, c, d]
    }

    /// What access is decided by: protocol, destination port (0 if there is none), source and destination address.
    #[must_use]
    pub fn target(&self) -> Vec<u8> {
        let (source, destination) = self.addresses();
        let port = if matches!(self.protocol, TCP | UDP) { self.destination_port } else { 0 };
        [&[self.protocol], &port.to_be_bytes()[..], source, destination].concat()
    }

    /// What a translation is decided by: protocol, source port (or identifier) and destination address.
    #[must_use]
    pub fn side(&self) -> Vec<u8> {
        [&[self.protocol], &self.source_port.to_be_bytes()[..], self.addresses().1].concat()
    }

    /// The key of the same packets with another source port (ICMP: identifier) and destination; `None` if `side` is not
    /// as [`Self::side`] makes it, for this protocol and family.
    #[must_use]
    pub fn moved(mut self, side: &[u8]) -> Option<Self> {
        let ([protocol, high, low], address) = side.split_first_chunk::<3>()?;
        if *protocol != self.protocol || address.len() != self.addresses().1.len() {
            return None;
        }
        self.destination[..address.len()].copy_from_slice(address);
        let port = u16::from_be_bytes([*high, *low]);
        if matches!(self.protocol, ICMP | ICMPV6) {
            self.destination_port = port;
        }
        self.source_port = port;
        Some(self)
    }

    /// The key of packets that answer: an echo reply answers a request and the other way round.
    #[must_use]
    pub fn reversed(&self) -> Self {
        let turned = if matches!(self.protocol, ICMP | ICMPV6) { self.kind ^ 2 } else { self.kind };
        Self {
            source: self.destination,
            destination: self.source,
            source_port: self.destination_port,
            destination_port: self.source_port,
            protocol: self.protocol,
            kind: turned,
        }
    }
}

impl std::hash::Hash for FlowKey {
    /// In few calls: the hash is taken for each packet that does not belong to the flow of the last one.
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write(&self.source);
        state.write(&self.destination);
        let ports = u64::from(self.source_port) | u64::from(self.destination_port) << 16;
        state.write_u64(ports | u64::from(self.protocol) << 32 | u64::from(self.kind) << 40);
    }
}

/// The address, an IPv4 one in front and the rest zero.
fn octets(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&ip.octets());
            bytes
        }
        IpAddr::V6(ip) => ip.octets(),
    }
}

/// A packet's headers, found and checked once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers {
    pub is_v6: bool,
    pub protocol: u8,
    /// Where the transport header starts.
    pub transport: usize,
    /// Where the transport payload starts; equals `transport` for protocols without known headers.
    pub payload: usize,
    /// The packet's length by its IP header; what follows is padding.
    pub len: usize,
    pub tcp_flags: u8,
    /// `None` for packets that never belong to a flow, such as ICMP errors.
    pub key: Option<FlowKey>,
}

impl Headers {
    /// Reads the headers of a packet.
    ///
    /// # Errors
    /// If the packet is malformed or of a kind that is never forwarded.
    pub fn parse(packet: &[u8]) -> Result<Self, PacketError> {
        match packet.first().map(|first| first >> 4) {
            Some(4) => Self::parse_v4(packet),
            Some(6) => Self::parse_v6(packet),
            _ => Err(PacketError::Malformed),
        }
    }

    fn parse_v4(packet: &[u8]) -> Result<Self, PacketError> {
        if packet.len() < 20 {
            return Err(PacketError::Malformed);
        }
        let header_len = usize::from(packet[0] & 0x0f) * 4;
        let len = usize::from(u16_at(packet, 2));
        if header_len < 20 || len < header_len || packet.len() < len {
            return Err(PacketError::Malformed);
        }
        if u16_at(packet, 6) & 0x3fff != 0 {
            return Err(PacketError::Fragmented);
        }
        if header_len > 20 {
            check_options(&packet[20..header_len])?;
        }
        let mut key = FlowKey {
            source: [0; 16],
            destination: [0; 16],
            source_port: 0,
            destination_port: 0,
            protocol: packet[9],
            kind: 0,
        };
        key.source[..4].copy_from_slice(&packet[12..16]);
        key.destination[..4].copy_from_slice(&packet[16..20]);
        Self::with_transport(&packet[..len], header_len, key)
    }

    fn parse_v6(packet: &[u8]) -> Result<Self, PacketError> {
        if packet.len() < 40 {
            return Err(PacketError::Malformed);
        }
        let len = 40 + usize::from(u16_at(packet, 4));
        if packet.len() < len {
            return Err(PacketError::Malformed);
        }
        let protocol = packet[6];
        match protocol {
            44 => return Err(PacketError::Fragmented),
            0 | 43 | 51 | 60 | 135 | 139 | 140 | 253 | 254 => return Err(PacketError::ExtensionHeader),
            _ => {}
        }
        let mut key =
            FlowKey { source: [0; 16], destination: [0; 16], source_port: 0, destination_port: 0, protocol, kind: 1 };
        key.source.copy_from_slice(&packet[8..24]);
        key.destination.copy_from_slice(&packet[24..40]);
        Self::with_transport(&packet[..len], 40, key)
    }

    fn with_transport(packet: &[u8], transport: usize, mut key: FlowKey) -> Result<Self, PacketError> {
        let rest = &packet[transport..];
        let is_v6 = key.kind & 1 != 0;
        let mut headers = Self {
            is_v6,
            protocol: key.protocol,
            transport,
            payload: transport,
            len: packet.len(),
            tcp_flags: 0,
            key: None,
        };
        match key.protocol {
            TCP => {
                let header_len = rest.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4);
                if header_len < 20 || rest.len() < header_len {
                    return Err(PacketError::Malformed);
                }
                headers.tcp_flags = rest[13];
                headers.payload = transport + header_len;
            }
            UDP => {
                if rest.len() < 8 {
                    return Err(PacketError::Malformed);
                }
                headers.payload = transport + 8;
            }
            ICMP | ICMPV6 => {
                if rest.len() < 8 || (key.protocol == ICMPV6) != is_v6 {
                    return Err(PacketError::Malformed);
                }
                let is_reply = match (rest[0], rest[1], is_v6) {
                    (8, 0, false) | (128, 0, true) => false,
                    (0, 0, false) | (129, 0, true) => true,
                    _ => return Ok(headers),
                };
                headers.payload = transport + 8;
                key.kind |= u8::from(is_reply) << 1;
                key.source_port = u16_at(rest, 4);
                key.destination_port = key.source_port;
                headers.key = Some(key);
                return Ok(headers);
            }
            _ => {
                headers.key = Some(key);
                return Ok(headers);
            }
        }
        key.source_port = u16_at(rest, 0);
        key.destination_port = u16_at(rest, 2);
        headers.key = Some(key);
        Ok(headers)
    }

    /// Source and destination address as they lie in the packet.
    #[must_use]
    pub fn addresses(&self) -> std::ops::Range<usize> {
        if self.is_v6 { 8..40 } else { 12..20 }
    }

    /// Where the transport checksum lies, if the protocol has one that we know.
    #[must_use]
    pub fn checksum_at(&self) -> Option<usize> {
        match self.protocol {
            TCP => Some(self.transport + 16),
            UDP => Some(self.transport + 6),
            ICMP | ICMPV6 => Some(self.transport + 2),
            _ => None,
        }
    }
}

/// The ECN bits of an IP packet that [`Headers::parse`] accepted.
#[must_use]
pub fn ecn(packet: &[u8]) -> u8 {
    match packet[0] >> 4 {
        4 => packet[1] & 3,
        _ => (packet[1] >> 4) & 3,
    }
}

/// Marks a packet that says it understands ECN as having met congestion; others stay as they are (RFC 6040 lets only
/// this bit in).
pub fn mark_congestion(packet: &mut [u8]) {
    if !matches!(ecn(packet), 1 | 2) {
        return;
    }
    if packet[0] >> 4 == 4 {
        let old = [packet[0], packet[1]];
        packet[1] |= 3;
        let change = crate::checksum::delta(&old, &packet[..2]);
        let field = crate::checksum::apply([packet[10], packet[11]], change);
        packet[10..12].copy_from_slice(&field);
    } else {
        packet[1] |= 0x30;
    }
}

/// Refuses source routes, and a list that cannot be walked to its end: others may read on where we stop.
fn check_options(mut options: &[u8]) -> Result<(), PacketError> {
    while let [kind, rest @ ..] = options {
        match kind {
            0 => return Ok(()),
            1 => options = rest,
            131 | 137 => return Err(PacketError::SourceRouted),
            _ => {
                let len = rest.first().map_or(0, |len| usize::from(*len));
                if len < 2 || len > options.len() {
                    return Err(PacketError::Malformed);
                }
                options = &options[len..];
            }
        }
    }
    Ok(())
}

#[must_use]
pub fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[must_use]
pub fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_parse_or_are_refused(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), v6: bool) {
            if let Some(first) = bytes.first_mut() {
                *first = if v6 { 0x60 } else { 0x45 };
            }
            if let Ok(headers) = Headers::parse(&bytes) {
                prop_assert!(headers.transport <= headers.payload && headers.payload <= headers.len);
                prop_assert!(headers.len <= bytes.len());
                if let (Some(at), Some(_)) = (headers.checksum_at(), headers.key) {
                    prop_assert!(at + 2 <= headers.len);
                }
            }
        }
    }

    #[test]
    fn a_source_route_hides_behind_padding_options() {
        assert_eq!(check_options(&[1, 1, 68, 4, 0, 0, 131, 3]), Err(PacketError::SourceRouted));
        assert_eq!(check_options(&[1, 68, 4, 0, 0, 0, 131, 3]), Ok(()));
    }

    #[test]
    fn an_option_that_lies_about_its_length_may_hide_a_source_route() {
        for options in [&[7, 200, 131][..], &[7, 0, 131, 3], &[7, 1, 131, 3], &[1, 1, 7]] {
            assert_eq!(check_options(options), Err(PacketError::Malformed));
        }
    }
}

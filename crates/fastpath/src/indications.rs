//! Send and Data indications: what a client and its relay exchange without a channel.
//!
//! Source: RFC 8656, sections 11 and 18; RFC 8489, sections 5 and 14.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const STUN_HEADER: usize = 20;
const COOKIE: u32 = 0x2112_a442;
const DATA_INDICATION: u16 = 0x0017;
const XOR_PEER_ADDRESS: u16 = 0x0012;
const DATA: u16 = 0x0013;
const FIRST_OPTIONAL: u16 = 0x8000;
const FINGERPRINT: u16 = 0x8028;

/// What a Send indication is.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// Peer and payload.
    Send(SocketAddr, &'a [u8]),
    /// It holds attributes that have to be understood and are not here.
    Unusual,
    Malformed,
}

/// Reads the first peer and the first payload of an indication.
pub fn read(datagram: &[u8]) -> Read<'_> {
    let Some((header, mut rest)) = datagram.split_first_chunk::<STUN_HEADER>() else {
        return Read::Malformed;
    };
    let length = usize::from(u16::from_be_bytes([header[2], header[3]]));
    if header[4..8] != COOKIE.to_be_bytes() || length != rest.len() || !length.is_multiple_of(4) {
        return Read::Malformed;
    }
    let (mut peer, mut payload) = (None, None);
    while let Some((tag, after)) = rest.split_first_chunk::<4>() {
        let kind = u16::from_be_bytes([tag[0], tag[1]]);
        let size = usize::from(u16::from_be_bytes([tag[2], tag[3]]));
        let Some(value) = after.get(..size) else {
            return Read::Malformed;
        };
        rest = after.get(size.next_multiple_of(4)..).unwrap_or_default();
        match kind {
            XOR_PEER_ADDRESS if peer.is_none() => match address(value, header) {
                Some(address) => peer = Some(address),
                None => return Read::Malformed,
            },
            DATA if payload.is_none() => payload = Some(value),
            XOR_PEER_ADDRESS | DATA => {}
            FINGERPRINT => return Read::Unusual,
            FIRST_OPTIONAL.. => {}
            _ => return Read::Unusual,
        }
    }
    match (peer, payload) {
        (Some(peer), Some(payload)) => Read::Send(peer, payload),
        _ => Read::Malformed,
    }
}

fn address(value: &[u8], header: &[u8; STUN_HEADER]) -> Option<SocketAddr> {
    let (head, ip) = value.split_first_chunk::<4>()?;
    let mask = u128::from_be_bytes(*header.last_chunk::<16>()?);
    let port = u16::from_be_bytes([head[2], head[3]]) ^ (COOKIE >> 16) as u16;
    let ip = match (head[1], ip.len()) {
        (1, 4) => IpAddr::V4(Ipv4Addr::from(u32::from_be_bytes(ip.try_into().ok()?) ^ COOKIE)),
        (2, 16) => IpAddr::V6(Ipv6Addr::from(u128::from_be_bytes(ip.try_into().ok()?) ^ mask)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// What stands in front of a payload of `length` bytes in a Data indication from `peer`; two words of randomness name it.
pub fn header(peer: SocketAddr, length: u16, first: u64, second: u64) -> Vec<u8> {
    let id = [&first.to_be_bytes()[..], &second.to_be_bytes()[..4]].concat();
    let mut value = vec![0, if peer.is_ipv6() { 2 } else { 1 }];
    value.extend((peer.port() ^ (COOKIE >> 16) as u16).to_be_bytes());
    let mask = [&COOKIE.to_be_bytes()[..], &id].concat();
    match peer.ip() {
        IpAddr::V4(ip) => value.extend(ip.octets().iter().zip(&mask).map(|(a, b)| a ^ b)),
        IpAddr::V6(ip) => value.extend(ip.octets().iter().zip(&mask).map(|(a, b)| a ^ b)),
    }
    let address_length = if peer.is_ipv6() { 20_u16 } else { 8 };
    let attributes = usize::from(address_length) + 8 + usize::from(length).next_multiple_of(4);
    let mut bytes = DATA_INDICATION.to_be_bytes().to_vec();
    bytes.extend(u16::try_from(attributes).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend(mask);
    bytes.extend(XOR_PEER_ADDRESS.to_be_bytes());
    bytes.extend(address_length.to_be_bytes());
    bytes.extend(value);
    bytes.extend(DATA.to_be_bytes());
    bytes.extend(length.to_be_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Send indication with the attributes of a Data indication's header.
    fn sample(peer: &str, payload: &[u8]) -> Vec<u8> {
        let peer = peer.parse().expect("a literal address");
        let mut bytes = header(peer, u16::try_from(payload.len()).expect("short"), 7, 9);
        bytes[1] = 0x16;
        bytes.extend(payload);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        for peer in ["192.0.2.9:52625", "[2001:db8::9]:1"] {
            for payload in [&b""[..], b"x", b"four", b"fives"] {
                assert_eq!(read(&sample(peer, payload)), Read::Send(peer.parse().expect("literal"), payload));
            }
        }
    }

    #[test]
    fn any_cut_of_a_message_is_malformed() {
        let whole = sample("192.0.2.9:52625", b"payload");
        for size in 0..whole.len() {
            assert_eq!(read(&whole[..size]), Read::Malformed);
        }
    }

    #[test]
    fn attributes_that_must_be_understood_are_for_others() {
        for (kind, expected_unusual) in [(0x001a_u16, true), (0x0008, true), (0x8028, true), (0x8022, false)] {
            let mut message = sample("192.0.2.9:52625", b"four");
            message.extend(kind.to_be_bytes());
            message.extend([0, 0]);
            let length = u16::try_from(message.len() - STUN_HEADER).expect("short");
            message[2..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(read(&message) == Read::Unusual, expected_unusual);
        }
    }

    #[test]
    fn what_lacks_a_peer_or_a_payload_is_malformed() {
        let whole = sample("192.0.2.9:52625", b"four");
        for range in [STUN_HEADER..STUN_HEADER + 12, STUN_HEADER + 12..whole.len()] {
            let mut part = whole.clone();
            part.drain(range);
            let length = u16::try_from(part.len() - STUN_HEADER).expect("short");
            part[2..4].copy_from_slice(&length.to_be_bytes());
            assert_eq!(read(&part), Read::Malformed);
        }
        let mut other_family = whole;
        other_family[STUN_HEADER + 5] = 3;
        assert_eq!(read(&other_family), Read::Malformed);
    }
}

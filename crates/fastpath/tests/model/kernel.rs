//! The kernel's side of the TUN device: which super-packets it gives and takes, and what it makes of one.
//!
//! As `tun_get_user`, `virtio_net_hdr_to_skb` and the segmentation of `net/ipv4` and `net/ipv6` do it, with nothing but
//! plain values.

use super::wire::{CWR, DONT_FRAGMENT, FIN, Ip, PSH, Packet, Transport, flow_of};

const NEEDS_CSUM: u8 = 1;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
/// `UDP_MAX_SEGMENTS`.
const UDP_MAX_SEGMENTS: usize = 128;

pub const VNET_LEN: usize = 10;

/// The packets that a super-packet stands for.
pub fn segments(whole: &Packet, size: usize) -> Vec<Packet> {
    let pieces: Vec<&[u8]> = if whole.payload.is_empty() { vec![&[]] } else { whole.payload.chunks(size).collect() };
    let last = pieces.len() - 1;
    let mut packets = Vec::new();
    for (index, piece) in pieces.into_iter().enumerate() {
        let mut packet = whole.around(piece.to_vec());
        if let Ip::V4 { id, .. } = &mut packet.ip {
            *id = id.wrapping_add(index as u16);
        }
        if let Some(tcp) = packet.tcp() {
            tcp.sequence = tcp.sequence.wrapping_add((index * size) as u32);
            if index < last {
                tcp.flags &= !(FIN | PSH);
            }
            if index > 0 {
                tcp.flags &= !CWR;
            }
        }
        packets.push(packet);
    }
    packets
}

/// A super-packet as it is read from the device: its header, and its bytes with the checksum left to do.
pub fn super_packet(whole: &Packet, size: u16) -> ([u8; VNET_LEN], Vec<u8>) {
    let kind = match (&whole.transport, whole.is_v6()) {
        (Transport::Tcp(_), false) => GSO_TCPV4,
        (Transport::Tcp(_), true) => GSO_TCPV6,
        _ => GSO_UDP_L4,
    };
    let (mut header, bytes) = unsummed(whole);
    header[1] = kind;
    header[2..4].copy_from_slice(&(whole.header_len() as u16).to_ne_bytes());
    header[4..6].copy_from_slice(&size.to_ne_bytes());
    (header, bytes)
}

/// A single packet whose checksum the device is to complete.
pub fn unsummed(packet: &Packet) -> ([u8; VNET_LEN], Vec<u8>) {
    let mut bytes = packet.encode();
    let start = packet.ip_header_len();
    let offset = match packet.transport {
        Transport::Tcp(_) => 16,
        Transport::Udp => 6,
        Transport::Echo { .. } => 2,
    };
    bytes[start + offset..start + offset + 2].copy_from_slice(&packet.partial_checksum().to_be_bytes());
    let mut header = [0; VNET_LEN];
    header[0] = NEEDS_CSUM;
    header[6..8].copy_from_slice(&(start as u16).to_ne_bytes());
    header[8..10].copy_from_slice(&(offset as u16).to_ne_bytes());
    (header, bytes)
}

/// The packets that a write to the device gives the host; panics where the kernel would refuse it.
pub fn written(vnet: &[u8; VNET_LEN], bytes: &[u8]) -> Vec<Vec<u8>> {
    let word = |at: usize| usize::from(u16::from_ne_bytes([vnet[at], vnet[at + 1]]));
    let (header_len, size, start, offset) = (word(2), word(4), word(6), word(8));
    if vnet[1] == 0 {
        assert_eq!(*vnet, [0; VNET_LEN], "a plain packet has a plain header");
        return vec![bytes.to_vec()];
    }
    assert_eq!(vnet[0], NEEDS_CSUM);
    let whole = Packet::decode(bytes).expect("a super-packet is a packet");
    let kind = match (&whole.transport, whole.is_v6()) {
        (Transport::Tcp(_), false) => GSO_TCPV4,
        (Transport::Tcp(_), true) => GSO_TCPV6,
        (Transport::Udp, _) => GSO_UDP_L4,
        (Transport::Echo { .. }, _) => panic!("an echo cannot be cut"),
    };
    assert_eq!(vnet[1], kind);
    assert_eq!(header_len, whole.header_len());
    assert_eq!((start, offset), (whole.ip_header_len(), if kind == GSO_UDP_L4 { 6 } else { 16 }));
    assert!(size > 0 && whole.payload.len() > size, "no super-packet");
    assert!(kind != GSO_UDP_L4 || whole.payload.len() <= size * UDP_MAX_SEGMENTS);
    let field = u16::from_be_bytes([bytes[start + offset], bytes[start + offset + 1]]);
    assert_eq!(field, whole.partial_checksum(), "the sum of the pseudo-header");
    if let Ip::V4 { .. } = whole.ip {
        assert_eq!(super::wire::checksum(&[&bytes[..start]]), 0);
    }
    segments(&whole, size).iter().map(Packet::encode).collect()
}

/// Compares the packets that a host sent with those that arrived, flow by flow.
///
/// Byte for byte, but for what the kernel makes anew when it cuts a super-packet (`was_joined`): of its pieces the ids are
/// numbered from the first one's, which says nothing where DF is set (RFC 6864), and a checksum of zero has one of its two
/// forms (RFC 1624).
pub fn assert_same_packets(sent: &[Vec<u8>], arrived: &[(Vec<u8>, bool)]) {
    let mut flows: Vec<Vec<u8>> =
        sent.iter().chain(arrived.iter().map(|(packet, _)| packet)).map(|p| flow_of(p)).collect();
    flows.sort();
    flows.dedup();
    for flow in flows {
        let of_sender: Vec<_> = sent.iter().filter(|packet| flow_of(packet) == flow).collect();
        let of_receiver: Vec<_> = arrived.iter().filter(|(packet, _)| flow_of(packet) == flow).collect();
        assert_eq!(of_sender.len(), of_receiver.len(), "packets of one flow");
        for (sent, (arrived, was_joined)) in of_sender.into_iter().zip(of_receiver) {
            if *was_joined {
                assert!(Packet::decode(arrived).expect("a whole packet").encode() == *arrived, "made by the kernel");
                assert_eq!(without_free_id(sent), without_free_id(arrived));
            } else {
                assert!(sent == arrived, "{:?} came as {:?}", Packet::decode(sent), Packet::decode(arrived));
            }
        }
    }
}

fn without_free_id(bytes: &[u8]) -> Packet {
    let mut packet = Packet::decode(bytes).expect("what was joined is a whole packet");
    let sum = packet.encode();
    assert!(same_but_for_zero_sums(&sum, bytes), "only packets with right checksums are joined");
    if let Ip::V4 { id, flags, .. } = &mut packet.ip
        && *flags & DONT_FRAGMENT != 0
    {
        *id = 0;
    }
    packet
}

/// Equal, where a checksum of 0xffff is one of 0.
fn same_but_for_zero_sums(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len()
        && a.chunks(2)
            .zip(b.chunks(2))
            .all(|(a, b)| a == b || (matches!(a, [0, 0] | [255, 255]) && matches!(b, [0, 0] | [255, 255])))
}

//! One packet through the tunnel: what the ends translate, what ECN does, and that nothing else changes.
//!
//! ECN is RFC 6040's, with two deviations that keep with Firezone's programs: a congestion mark on a packet whose sender does
//! not know ECN is ignored instead of costing the packet, and ECT(1) outside never changes ECT(0) inside.

use fastpath::net_path::Receiver;
use fastpath::send_queue::SendQueue;
use fastpath::tun_path::FromTun;
use fastpath::virtio::VnetHeader;

use super::choices::Choices;
use super::streams::{Kind, Stream};
use super::wire::{ICMP, ICMPV6, Ip, Packet, TCP, Transport};
use super::world::{MTU, Side, Way, World, address, all_ends, relay};

pub const NOT_ECT: u8 = 0;
pub const ECT_1: u8 = 1;
pub const ECT_0: u8 = 2;
pub const CE: u8 = 3;

/// What the outer header of a packet says.
pub fn outer_of(inner: u8) -> u8 {
    inner
}

/// What comes out of a packet marked `inner` in a datagram marked `outer`.
pub fn inner_after(inner: u8, outer: u8) -> u8 {
    match (inner, outer) {
        (ECT_0 | ECT_1, CE) => CE,
        (unchanged, _) => unchanged,
    }
}

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let world = World::new();
    let number = choices.within(0..=all_ends().len() - 1);
    let way = if choices.flag() { Way::Up } else { Way::Down };
    let ends = all_ends()[number];
    let (source, destination) = ends.sent(way);
    let kind = match ends.protocol {
        TCP => Kind::Tcp,
        ICMP | ICMPV6 => Kind::Echo { is_reply: way == Way::Down },
        _ => Kind::Udp,
    };
    let mut stream = Stream::new(&mut choices, source, destination, kind);
    let mut packet = stream.packet(&mut choices);
    packet.set_ecn(choices.byte() & 3);
    packet.payload.truncate(MTU - packet.header_len());
    if choices.flag() {
        world.go(Some(0x4005));
    }
    if choices.one_in(4) {
        packet.payload = ends.translated(way, &packet).summing_to_zero().payload;
    }
    let outer = choices.byte() & 3;
    let damage = match choices.within(0..=5) {
        4 if !packet.payload.is_empty() => Damage::Contents(choices.byte()),
        5 if matches!(packet.transport, Transport::Udp) => Damage::NoSum,
        _ => Damage::None,
    };
    travels(&world, way, &packet, &ends.translated(way, &packet), outer, damage);
}

/// What is wrong with a packet, and must be wrong with it in the same way where it comes out.
#[derive(Clone, Copy)]
pub enum Damage {
    None,
    Contents(u8),
    /// UDP without a checksum.
    NoSum,
}

impl Damage {
    fn apply(self, packet: &Packet, bytes: &mut [u8]) {
        match self {
            Self::None => {}
            Self::Contents(change) => *bytes.last_mut().expect("there is a payload") ^= change,
            Self::NoSum => bytes[packet.ip_header_len() + 6..packet.ip_header_len() + 8].fill(0),
        }
    }
}

/// Sends a packet and marks its datagram on the way.
pub fn travels(world: &World, way: Way, packet: &Packet, expected: &Packet, outer: u8, damage: Damage) {
    let (sender, receiver) = world.engines(way);
    let mut queue = SendQueue::new(true);
    let mut bytes = packet.encode();
    damage.apply(packet, &mut bytes);
    FromTun::default().handle(sender, VnetHeader::PLAIN, &mut bytes, 1.0, &mut queue);
    let queue = queue.seal_all();
    let [send] = queue.sends() else { panic!("one packet is one datagram") };
    assert_eq!(send.to.ecn, outer_of(packet.ecn()));
    assert_eq!(queue.payload(send).len(), packet.len() + 32 + if send.to.remote == relay() { 4 } else { 0 });

    let mut arena = queue.payload(send).to_vec();
    let len = arena.len();
    let (to, from) = if way == Way::Up { (Side::Gateway, Side::Client) } else { (Side::Client, Side::Gateway) };
    let remote = if send.to.remote == relay() { relay() } else { address(from) };
    let mut from_network = Receiver::default();
    from_network.handle(receiver, address(to), remote, outer, &mut arena, 0..len, len, 1.0);
    let mut expected = expected.clone();
    expected.set_ecn(inner_after(packet.ecn(), outer));
    let mut expected = expected.encode();
    damage.apply(packet, &mut expected);
    assert_eq!(from_network.take_packets(&arena), [expected]);
}

/// The packet with this mark, in a tunnel as `world` has it.
pub fn marked(way: Way, number: usize, ecn: u8, dscp: u8) -> (Packet, Packet) {
    let ends = all_ends()[number];
    let (source, destination) = ends.sent(way);
    let kind = if ends.protocol == TCP { Kind::Tcp } else { Kind::Udp };
    let mut packet = Stream::new(&mut Choices::new(&[]), source, destination, kind).plain(&mut Choices::new(&[]));
    match &mut packet.ip {
        Ip::V4 { tos: byte, .. } | Ip::V6 { class: byte, .. } => *byte = dscp << 2 | ecn,
    }
    let expected = ends.translated(way, &packet);
    (packet, expected)
}

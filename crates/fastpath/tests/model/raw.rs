//! Every decoder of the packet path on bytes without any form: a value or a refusal, and never a panic.

use fastpath::coalesce::{Coalescer, Offloads};
use fastpath::engine::Engine;
use fastpath::net_path::Receiver;
use fastpath::noise::{Initiation, OpenedInitiation, StaticKey, xchacha20poly1305_open};
use fastpath::packet::{Headers, ecn, mark_congestion};
use fastpath::relay;
use fastpath::send_queue::SendQueue;
use fastpath::split::{Split, finish_checksum};
use fastpath::tun_path::FromTun;
use fastpath::virtio::{VNET_HEADER_LEN, VnetHeader};

use super::wire::{Packet, Transport};
use super::world::{MTU, Side, World, address, relay as a_relay};

/// The headers of an IP packet, and whatever reads a packet once it has them.
pub fn headers(bytes: &[u8]) {
    let parsed = Headers::parse(bytes);
    if let Some(packet) = Packet::decode(bytes) {
        agrees(&packet, bytes);
    }
    let Ok(headers) = parsed else { return };
    assert!(headers.transport <= headers.payload && headers.payload <= headers.len && headers.len <= bytes.len());
    assert!(headers.checksum_at().is_none_or(|at| at + 2 <= headers.len));
    let mut marked = bytes.to_vec();
    mark_congestion(&mut marked);
    let expected = if matches!(ecn(bytes), 1 | 2) { 3 } else { ecn(bytes) };
    assert_eq!(ecn(&marked), expected);
    let mut coalescer = Coalescer::new(Offloads { tcp: true, udp: true });
    let mut arena = bytes.to_vec();
    coalescer.push(&arena, 0, &headers, 1);
    let [only] = coalescer.finish(coalescer.len(), &mut arena) else { panic!("one packet is one write") };
    assert!(only.slices.iter().cloned().eq(std::iter::once(0..headers.len)));
}

/// What the model can read the packet path reads alike.
fn agrees(packet: &Packet, bytes: &[u8]) {
    if packet.ip_header_len() > 20 && !packet.is_v6() {
        return; // options are the business of another check
    }
    let headers = Headers::parse(bytes).expect("the model could read it");
    assert_eq!((headers.protocol, headers.is_v6), (packet.protocol(), packet.is_v6()));
    assert_eq!((headers.transport, headers.payload), (packet.ip_header_len(), packet.header_len()));
    assert_eq!(headers.len, bytes.len());
    let is_reply = matches!(packet.transport, Transport::Echo { is_reply: true, .. });
    let key = fastpath::packet::FlowKey::new(packet.protocol(), packet.source, packet.destination, is_reply);
    assert_eq!(headers.key, key);
}

/// A read of the TUN device: a header of ten bytes, and a packet.
pub fn tun_read(bytes: &[u8]) {
    let Some((vnet, packet)) = bytes.split_first_chunk::<VNET_HEADER_LEN>() else { return };
    let header = VnetHeader::decode(vnet);
    let _ = finish_checksum(&header, &mut packet.to_vec());
    if let Ok(headers) = Headers::parse(packet)
        && let Ok(split) = Split::new(&header, &headers)
    {
        let total: usize = (0..split.segments).map(|index| split.len(index)).sum();
        assert_eq!(total, split.total());
        for index in 0..split.segments {
            split.write(packet, index, &mut vec![0; split.len(index)]);
        }
    }
    let world = World::new();
    let mut queue = SendQueue::new(true);
    FromTun::default().handle(&world.client, header, &mut packet.to_vec(), 1.0, &mut queue);
    let queue = queue.seal_all();
    for send in queue.sends() {
        assert!(send.segment <= MTU + 32 && send.to.remote == address(Side::Gateway));
    }
    one_outcome(&world.client, queue.sends().iter().map(|send| send.segments).sum());
}

/// A datagram from the network, directly and from a relay.
pub fn datagram(bytes: &[u8]) {
    let world = World::new();
    world.client.ring.poll(usize::MAX);
    for (remote, stride) in [(address(Side::Gateway), bytes.len()), (a_relay(), bytes.len()), (a_relay(), 33)] {
        let mut receiver = Receiver::default();
        let (mut arena, len) = (bytes.to_vec(), bytes.len());
        receiver.handle(&world.client, address(Side::Client), remote, 3, &mut arena, 0..len, stride, 1.0);
        assert!(receiver.take_packets(&arena).is_empty(), "nobody but the gateway has the keys");
    }
}

/// The tunnel's messages after they were opened: a packet of a peer that may send anything.
pub fn inner(bytes: &[u8]) {
    let world = World::new();
    world.gateway.ring.poll(usize::MAX);
    let packets = world.gateway.handle_inner(super::world::PEER, bytes, 1.0);
    assert!(packets.iter().all(|packet| packet.len() <= MTU && packet.len() <= bytes.len()));
    one_outcome(&world.gateway, packets.len());
}

/// A packet passes, is decided about by Python, or is counted as refused.
fn one_outcome(engine: &Engine, passed: usize) {
    let upcalls = engine.ring.poll(usize::MAX).len();
    let refused = ["packets_malformed", "packets_fragmented", "packets_extension_header", "packets_source_routed"];
    let others = ["packets_too_long", "offload_refused"];
    let counted = |name: &str| refused.contains(&name) || others.contains(&name);
    let refused: u64 = engine.counters.each().filter(|(name, _)| counted(name)).map(|(_, value)| value).sum();
    assert_eq!(usize::from(passed > 0) + upcalls + refused as usize, 1);
}

/// Handshake messages, and what is sealed in a cookie reply.
pub fn handshake(bytes: &[u8]) {
    let (a, b) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let (mut initiation, whole) =
        Initiation::start(&a, &b.public_key(), &[7; 32], 5, &[9; 12], [3; 32]).expect("keys agree");
    let is_ours = bytes.len() == whole.len() && bytes[..116] == whole[..116];
    assert_eq!(OpenedInitiation::open(&b, bytes).is_ok(), is_ours);
    assert!(initiation.finish(bytes).is_err());
    let (response, _) =
        OpenedInitiation::open(&b, &whole).expect("it is for b").respond(&[7; 32], 6, [4; 32]).expect("the first");
    assert!(initiation.finish(&response).is_ok(), "a bad response does no harm");
    assert!(xchacha20poly1305_open(&[1; 32], &[2; 24], &[], bytes).is_err());
}

/// A relay's channel data.
pub fn channel_data(bytes: &[u8]) {
    let plain = || {
        let number = u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]);
        let len = usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]));
        if !(0x4000..=0x7fff).contains(&number) || bytes.len() < 4 + len {
            return None;
        }
        Some((number, &bytes[4..4 + len]))
    };
    assert_eq!(relay::decode(bytes), plain());
}

//! Split, sealed, opened and joined again: the batches of both directions against packets handled one by one.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use fastpath::coalesce::{Coalescer, Offloads};
use fastpath::engine::{Engine, Limits};
use fastpath::flow::FlowSpec;
use fastpath::net_path::Receiver;
use fastpath::noise::{Initiation, Keypair, OpenedInitiation, StaticKey};
use fastpath::packet::{ACK, CWR, FIN, Headers, PSH, TCP, UDP};
use fastpath::peer::Path;
use fastpath::send_queue::SendQueue;
use fastpath::split::Split;
use fastpath::tables::Bounds;
use fastpath::tun_path::FromTun;
use fastpath::upcall::Signal;
use fastpath::virtio::{Gso, VNET_HEADER_LEN, VnetHeader};
use proptest::prelude::*;

const PEER: u32 = 1;

struct Silent;

impl Signal for Silent {
    fn raise(&self) {}
    fn clear(&self) {}
}

fn engine() -> Engine {
    let tables = Bounds { peers: 8, flows: 64, flows_per_peer: 64 };
    Engine::new(Limits { tables, upcalls: 64, upcalls_per_peer: 32, mtu: 1280 }, Box::new(Silent))
}

fn keypairs() -> (Keypair, Keypair) {
    let (a, b) = (StaticKey::new([1; 32]), StaticKey::new([2; 32]));
    let (mut initiation, message) = Initiation::start(&a, &b.public_key(), &[7; 32], 10, &[9; 12], [3; 32]).unwrap();
    let (response, of_b) = OpenedInitiation::open(&b, &message).unwrap().respond(&[7; 32], 20, [4; 32]).unwrap();
    (initiation.finish(&response).unwrap(), of_b)
}

fn address(v6: bool, last: u8, port: u16) -> SocketAddr {
    if v6 { ([0xfd00, 0, 0, 0, 0, 0, 0, u16::from(last)], port).into() } else { ([10, 0, 0, last], port).into() }
}

/// A client that sends to 10.0.0.3 what its host sends to 10.0.0.2, and a gateway that takes it as it comes.
fn pair(v6: bool, protocol: u8, channel: Option<u16>) -> (Engine, Engine) {
    let (client, gateway) = (engine(), engine());
    let (of_client, of_gateway) = keypairs();
    client.add_session(PEER, &of_client, 0.0, 180.0).unwrap();
    gateway.add_session(PEER, &of_gateway, 0.0, 180.0).unwrap();
    client.set_path(PEER, Path { local: None, remote: address(false, 9, 9), channel }).unwrap();
    gateway.add_channel(address(false, 8, 8), channel.unwrap_or(0x4000));
    let inner = (address(v6, 1, 4000), address(v6, 3, 443));
    let spec = |from_peer, host: (SocketAddr, SocketAddr)| FlowSpec {
        flow_id: 1,
        peer: PEER,
        authorization: 0,
        protocol,
        inner_source: inner.0,
        inner_destination: inner.1,
        host_source: host.0,
        host_destination: host.1,
        from_peer,
        idle_s: 60.0,
        unconfirmed_idle_s: 60.0,
        icmp_reply_first: false,
    };
    assert!(client.add_flow(spec(false, (address(v6, 1, 40000), address(v6, 2, 80))), 0.0).unwrap());
    assert!(gateway.add_flow(spec(true, inner), 0.0).unwrap());
    (client, gateway)
}

/// A super-packet of the client's host, its checksum left to the device, and its header.
fn super_packet(v6: bool, protocol: u8, flags: u8, payload: &[u8], segment_size: u16) -> (VnetHeader, Vec<u8>) {
    let transport_len = if protocol == TCP { 32 } else { 8 };
    let ip_len = if v6 { 40 } else { 20 };
    let len = ip_len + transport_len + payload.len();
    let mut packet = vec![0; ip_len + transport_len];
    let octets = |one: SocketAddr| match one.ip() {
        std::net::IpAddr::V4(ip) => ip.octets().to_vec(),
        std::net::IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let (source, destination) = (octets(address(v6, 1, 0)), octets(address(v6, 2, 0)));
    if v6 {
        packet[0] = 0x60;
        packet[4..6].copy_from_slice(&((len - 40) as u16).to_be_bytes());
        (packet[6], packet[7]) = (protocol, 64);
        packet[8..24].copy_from_slice(&source);
        packet[24..40].copy_from_slice(&destination);
    } else {
        packet[0] = 0x45;
        packet[1] = 2; // ECT(0)
        packet[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        packet[4..6].copy_from_slice(&0xfffe_u16.to_be_bytes());
        packet[6] = 0x40;
        (packet[8], packet[9]) = (64, protocol);
        packet[12..16].copy_from_slice(&source);
        packet[16..20].copy_from_slice(&destination);
        let sum = slow_checksum(&[&packet]);
        packet[10..12].copy_from_slice(&sum);
    }
    let transport = &mut packet[ip_len..];
    transport[..2].copy_from_slice(&40000_u16.to_be_bytes());
    transport[2..4].copy_from_slice(&80_u16.to_be_bytes());
    if protocol == TCP {
        transport[4..8].copy_from_slice(&0xffff_f000_u32.to_be_bytes());
        transport[12] = 8 << 4;
        transport[13] = flags;
        transport[14..16].copy_from_slice(&500_u16.to_be_bytes());
        transport[20..32].copy_from_slice(&[1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
    } else {
        transport[4..6].copy_from_slice(&((len - ip_len) as u16).to_be_bytes());
    }
    packet.extend_from_slice(payload);
    let gso = match (protocol, v6) {
        (TCP, false) => Gso::Tcp4,
        (TCP, true) => Gso::Tcp6,
        _ => Gso::Udp,
    };
    let header = VnetHeader {
        needs_checksum: true,
        gso,
        header_len: (ip_len + transport_len) as u16,
        segment_size,
        checksum_start: ip_len as u16,
        checksum_offset: if protocol == TCP { 16 } else { 6 },
    };
    (header, packet)
}

/// Word by word, as RFC 1071 tells it.
fn slow_checksum(parts: &[&[u8]]) -> [u8; 2] {
    let bytes: Vec<u8> = parts.concat();
    let mut total = 0u32;
    for pair in bytes.chunks(2) {
        total += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        total = (total & 0xffff) + (total >> 16);
    }
    (!(total as u16)).to_be_bytes()
}

fn assert_sound(packet: &[u8]) {
    let headers = Headers::parse(packet).unwrap();
    assert_eq!(headers.len, packet.len());
    if !headers.is_v6 {
        assert_eq!(slow_checksum(&[&packet[..20]]), [0, 0]);
    }
    let transport = &packet[headers.transport..];
    let pseudo = [0, headers.protocol, (transport.len() >> 8) as u8, transport.len() as u8];
    assert_eq!(slow_checksum(&[&packet[headers.addresses()], &pseudo, transport]), [0, 0]);
    if headers.protocol == UDP {
        assert_eq!(usize::from(u16::from_be_bytes([transport[4], transport[5]])), transport.len());
    }
}

/// Carries what the queue holds to the receiver, a GRO run at a time, and returns the writes to the TUN device.
fn received(gateway: &Engine, queue: &mut SendQueue, offloads: Offloads) -> Vec<([u8; VNET_HEADER_LEN], Vec<u8>)> {
    let mut arena = Vec::new();
    let mut receiver = Receiver::default();
    let queue = queue.seal_all();
    for send in queue.sends() {
        let start = arena.len();
        arena.extend_from_slice(queue.payload(send));
        let range = start..arena.len();
        let (local, remote) = (address(false, 9, 9), address(false, 8, 8));
        receiver.handle(gateway, local, remote, send.to.ecn, &mut arena, range, send.segment, 1.0);
    }
    let mut coalescer = Coalescer::new(offloads);
    receiver.drain_into(&arena, &mut coalescer);
    let writes: Vec<_> =
        coalescer.finish(coalescer.len(), &mut arena).iter().map(|one| (one.vnet, one.slices.clone())).collect();
    let joined = |slices: Vec<std::ops::Range<usize>>| slices.into_iter().flat_map(|range| arena[range].to_vec());
    writes.into_iter().map(|(vnet, slices)| (vnet, joined(slices).collect())).collect()
}

/// The packets that a write stands for.
fn cut((vnet, packet): &([u8; VNET_HEADER_LEN], Vec<u8>)) -> Vec<Vec<u8>> {
    let header = VnetHeader::decode(vnet);
    if header.gso == Gso::None {
        return vec![packet.clone()];
    }
    let headers = Headers::parse(packet).unwrap();
    assert_eq!(usize::from(header.header_len), headers.payload);
    let pseudo_len = (packet.len() - headers.transport) as u16;
    let pseudo = [0, headers.protocol, (pseudo_len >> 8) as u8, pseudo_len as u8];
    let [a, b] = slow_checksum(&[&packet[headers.addresses()], &pseudo]);
    let at = headers.checksum_at().unwrap();
    assert_eq!(packet[at..at + 2], [!a, !b]);
    let split = Split::new(&header, &headers).unwrap();
    let piece = |index| {
        let mut out = vec![0; split.len(index)];
        split.write(packet, index, &mut out);
        out
    };
    (0..split.segments).map(piece).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn a_super_packet_arrives_whole(
        v6: bool,
        is_tcp: bool,
        gso: bool,
        coalesce: bool,
        relayed: bool,
        extra_flags in prop::sample::select(vec![0, PSH, FIN, PSH | FIN, CWR]),
        payload in prop::collection::vec(any::<u8>(), 1..20_000),
        segment_size in 200u16..1200,
    ) {
        let protocol = if is_tcp { TCP } else { UDP };
        let (client, gateway) = pair(v6, protocol, relayed.then_some(0x4005));
        let (header, mut packet) = super_packet(v6, protocol, ACK | extra_flags, &payload, segment_size);
        let mut queue = SendQueue::new(gso);

        FromTun::default().handle(&client, header, &mut packet, 1.0, &mut queue);
        let writes = received(&gateway, &mut queue, Offloads { tcp: coalesce, udp: coalesce });

        let packets: Vec<Vec<u8>> = writes.iter().flat_map(cut).collect();
        let segments = payload.len().div_ceil(usize::from(segment_size));
        prop_assert_eq!(packets.len(), segments);
        let mut carried = Vec::new();
        for (index, packet) in packets.iter().enumerate() {
            assert_sound(packet);
            let headers = Headers::parse(packet).unwrap();
            prop_assert_eq!(headers.key.unwrap(), expected_key(v6, protocol));
            if is_tcp {
                let at = headers.transport;
                let sequence = u32::from_be_bytes(packet[at + 4..at + 8].try_into().unwrap());
                prop_assert_eq!(sequence, 0xffff_f000_u32.wrapping_add(carried.len() as u32));
                let is_last = index + 1 == segments;
                prop_assert_eq!(headers.tcp_flags & (PSH | FIN), if is_last { extra_flags & (PSH | FIN) } else { 0 });
                prop_assert_eq!(headers.tcp_flags & CWR, if index == 0 { extra_flags & CWR } else { 0 });
            }
            carried.extend_from_slice(&packet[headers.payload..]);
        }
        prop_assert_eq!(carried, payload);
        if coalesce && extra_flags & (FIN | CWR) == 0 {
            prop_assert!(writes.len() <= 1 + segments / 127);
        }
        if !v6 && gso {
            prop_assert!(queue.seal_all().sends().iter().all(|send| send.to.ecn == 2));
        }
    }

    #[test]
    fn any_read_of_the_device_is_taken(
        vnet: [u8; VNET_HEADER_LEN],
        first in prop::sample::select(vec![0x45u8, 0x46, 0x60, 0]),
        mut packet in prop::collection::vec(any::<u8>(), 0..3000),
        real: bool,
        segment_size: u16,
    ) {
        let (client, _) = pair(false, TCP, None);
        let mut header = VnetHeader::decode(&vnet);
        if real {
            (header, packet) = super_packet(false, TCP, ACK, &packet, segment_size);
        } else if let Some(byte) = packet.first_mut() {
            *byte = first;
        }
        let mut queue = SendQueue::new(true);

        FromTun::default().handle(&client, header, &mut packet, 1.0, &mut queue);

        for send in queue.seal_all().sends() {
            prop_assert!(send.segment <= 1280 + 32);
        }
    }

    #[test]
    fn any_run_of_datagrams_is_taken(mut bytes in prop::collection::vec(any::<u8>(), 0..500), stride in 0usize..100) {
        let (_, gateway) = pair(false, TCP, None);
        let len = bytes.len();
        let mut receiver = Receiver::default();
        for byte in bytes.iter_mut().step_by(stride.max(1)) {
            *byte = 4;
        }

        let (local, remote) = (address(false, 9, 9), address(false, 8, 8));
        receiver.handle(&gateway, local, remote, 3, &mut bytes, 0..len, stride, 1.0);

        prop_assert!(receiver.take_packets(&bytes).is_empty());
    }
}

#[test]
fn what_the_kernel_would_not_join_is_not_joined() {
    let (client, gateway) = pair(false, TCP, None);
    let mut queue = SendQueue::new(true);
    let mut from_tun = FromTun::default();
    let mut send = |change: &dyn Fn(&mut Vec<u8>)| {
        let (_, mut packet) = super_packet(false, TCP, ACK, &[1; 100], 100);
        change(&mut packet);
        let header = VnetHeader { needs_checksum: false, gso: Gso::None, ..VnetHeader::PLAIN };
        fix_checksums(&mut packet);
        from_tun.handle(&client, header, &mut packet, 1.0, &mut queue);
    };
    let sequence = |packet: &mut Vec<u8>, by: u32| {
        packet[24..28].copy_from_slice(&0xffff_f000_u32.wrapping_add(by).to_be_bytes());
    };
    send(&|_| {});
    send(&|packet| sequence(packet, 100)); // follows: joined
    send(&|packet| sequence(packet, 300)); // a gap
    send(&|packet| {
        sequence(packet, 400);
        packet[1] = 3; // met congestion
    });
    send(&|packet| {
        sequence(packet, 500);
        packet[1] = 3;
        packet[34..36].copy_from_slice(&7_u16.to_be_bytes()); // another window
    });
    send(&|packet| {
        sequence(packet, 600);
        packet[1] = 3;
        packet[8] = 60; // another TTL
    });
    send(&|packet| {
        sequence(packet, 700);
        packet[33] = ACK | FIN;
    });
    send(&|packet| sequence(packet, 800)); // behind a FIN that was not joined
    send(&|packet| {
        sequence(packet, 900);
        packet[32] |= 1; // a reserved bit, AE of accurate ECN
    });

    let writes = received(&gateway, &mut queue, Offloads { tcp: true, udp: true });

    let lengths: Vec<usize> = writes.iter().map(|(_, packet)| packet.len()).collect();
    assert_eq!(lengths, [252, 152, 152, 152, 152, 152, 152, 152]);
    writes.iter().flat_map(cut).for_each(|packet| assert_sound(&packet));
}

/// A super-packet is more than one send takes; the threads send what is full and keep the rest for the next super-packet.
#[test]
fn what_is_sent_later_is_sealed_later_and_all_of_it_opens() {
    let (client, gateway) = pair(false, TCP, None);
    let mut queue = SendQueue::new(true);
    let mut receiver = Receiver::default();
    let mut arrived = Vec::new();
    let mut carry = |queue: &mut SendQueue, upto: usize| {
        let sealed = queue.seal(upto);
        for send in sealed.sends() {
            let mut arena = sealed.payload(send).to_vec();
            let (len, local, remote) = (arena.len(), address(false, 9, 9), address(false, 8, 8));
            receiver.handle(&gateway, local, remote, 0, &mut arena, 0..len, send.segment, 1.0);
            arrived.extend(receiver.take_packets(&arena));
        }
        queue.discard(upto);
    };
    let payload: Vec<u8> = (0..52 * 1228u32).map(|at| (at / 1228) as u8).collect();
    for _ in 0..3 {
        let (header, mut packet) = super_packet(false, TCP, ACK, &payload, 1228);
        FromTun::default().handle(&client, header, &mut packet, 1.0, &mut queue);
        let closed = queue.closed();
        assert!(0 < closed && closed < queue.len());
        carry(&mut queue, closed);
    }
    let rest = queue.len();
    carry(&mut queue, rest);

    let expected: Vec<u8> = (0..3).flat_map(|_| payload.chunks(1228).map(|chunk| chunk[0])).collect();
    assert_eq!(arrived.iter().map(|packet| packet[52]).collect::<Vec<u8>>(), expected);
    arrived.iter().for_each(|packet| assert_sound(packet));
    let counters = &gateway.counters;
    assert_eq!(counters.datagrams_not_authentic.load(Relaxed) + counters.datagrams_replayed.load(Relaxed), 0);
}

#[test]
fn a_wrong_checksum_is_passed_on_and_not_repaired() {
    let (client, gateway) = pair(false, TCP, None);
    let (_, mut packet) = super_packet(false, TCP, ACK, &[1; 200], 100);
    fix_checksums(&mut packet);
    packet[60] ^= 0xff;
    let mut queue = SendQueue::new(true);
    for _ in 0..2 {
        FromTun::default().handle(&client, VnetHeader::PLAIN, &mut packet.clone(), 1.0, &mut queue);
    }

    let writes = received(&gateway, &mut queue, Offloads { tcp: true, udp: true });

    assert_eq!(writes.len(), 2);
    assert!(writes.iter().all(|(vnet, _)| *vnet == [0; VNET_HEADER_LEN]));
}

fn fix_checksums(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let sum = slow_checksum(&[&packet[..20]]);
    packet[10..12].copy_from_slice(&sum);
    packet[36..38].fill(0);
    let len = (packet.len() - 20) as u16;
    let sum = slow_checksum(&[&packet[12..20], &[0, TCP, (len >> 8) as u8, len as u8], &packet[20..]]);
    packet[36..38].copy_from_slice(&sum);
}

fn expected_key(v6: bool, protocol: u8) -> fastpath::packet::FlowKey {
    fastpath::packet::FlowKey::new(protocol, address(v6, 1, 4000), address(v6, 3, 443), false).unwrap()
}

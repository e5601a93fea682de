//! Packets for the TUN device, joined: what the kernel cuts out of the joined ones is what came.

use fastpath::coalesce::{Coalescer, Offloads};
use fastpath::packet::Headers;

use super::choices::Choices;
use super::kernel::{assert_same_packets, written};
use super::streams::{Kind, Stream};
use super::wire::{Packet, TCP, Transport, UDP};

const MOST_SLICES: usize = 127;
const LONGEST: usize = 65_535;

/// A packet in the arena, as the thread from the network finds it.
struct Arrived {
    stream: usize,
    start: usize,
    bytes: Vec<u8>,
    /// Bytes behind it that are not of it, as other WireGuards pad.
    padding: usize,
}

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let offloads = Offloads { tcp: !choices.one_in(8), udp: !choices.one_in(8) };
    let mut coalescer = Coalescer::new(offloads);
    let mut streams = streams(&mut choices);
    for _ in 0..choices.within(1..=2) {
        let mut packets = batch(&mut choices, &mut streams);
        join_and_cut(&mut choices, &mut coalescer, offloads, &mut packets);
    }
}

fn streams(choices: &mut Choices) -> Vec<Stream> {
    let mut streams = Vec::new();
    for number in 0..choices.within(1..=5) as u16 {
        let (a, b) = if choices.one_in(3) {
            (([0xfd00, 0, 0, 0, 0, 0, 0, 1], 443).into(), ([0xfd00, 0, 0, 0, 0, 0, 0, 2], 4000 + number).into())
        } else {
            (([10, 0, 0, 1], 443).into(), ([10, 0, 0, 2], 4000 + number).into())
        };
        let kind = match choices.within(0..=6) {
            0..=3 => Kind::Tcp,
            4 | 5 => Kind::Udp,
            _ => Kind::Echo { is_reply: true },
        };
        streams.push(Stream::new(choices, a, b, kind));
    }
    streams
}

fn batch(choices: &mut Choices, streams: &mut [Stream]) -> Vec<Arrived> {
    let mut packets = Vec::new();
    for _ in 0..choices.within(0..=40) {
        let stream = choices.within(0..=streams.len() - 1);
        let run = if choices.one_in(24) { choices.within(1..=200) } else { 1 };
        for at in 0..run {
            let packet = if at == 0 { streams[stream].packet(choices) } else { streams[stream].plain(choices) };
            let mut bytes = packet.encode();
            if choices.one_in(24) {
                damage(choices, &packet, &mut bytes);
            }
            let padding = if choices.one_in(16) { choices.within(1..=15) } else { 0 };
            packets.push(Arrived { stream, start: 0, bytes, padding });
        }
    }
    for _ in 0..choices.within(0..=8) {
        if packets.len() > 1 {
            let at = choices.within(0..=packets.len() - 2);
            packets.swap(at, at + 1);
        }
    }
    packets
}

/// What no sender should do, and some do.
fn damage(choices: &mut Choices, packet: &Packet, bytes: &mut [u8]) {
    let transport = packet.ip_header_len();
    match (choices.within(0..=3), &packet.transport) {
        (0, Transport::Udp) => bytes[transport + 6..transport + 8].fill(0),
        (1, Transport::Udp) => bytes[transport + 5] ^= 1,
        (2, _) if !packet.is_v6() => bytes[10] ^= 0x40,
        (_, Transport::Tcp(_)) => bytes[transport + 16] ^= 0x40,
        _ => *bytes.last_mut().expect("a packet has bytes") ^= 0x40,
    }
}

fn join_and_cut(choices: &mut Choices, coalescer: &mut Coalescer, offloads: Offloads, packets: &mut [Arrived]) {
    let mut arena = vec![0xdd; 3];
    for one in packets.iter_mut() {
        one.start = arena.len();
        arena.extend(&one.bytes);
        arena.extend(vec![0xdd; one.padding]);
    }
    let mut arrived = Vec::new();
    for one in packets.iter() {
        let headers = Headers::parse(&arena[one.start..one.start + one.bytes.len() + one.padding]).expect("a packet");
        coalescer.push(&arena, one.start, &headers, one.stream);
        if choices.one_in(24) {
            let closed = coalescer.closed();
            assert!(closed + 1 >= coalescer.len());
            arrived.extend(written_by(coalescer, closed, offloads, &mut arena));
        }
    }
    arrived.extend(written_by(coalescer, coalescer.len(), offloads, &mut arena));
    assert!(coalescer.is_empty());
    let sent: Vec<Vec<u8>> = packets.iter().map(|one| one.bytes.clone()).collect();
    assert_same_packets(&sent, &arrived);
}

/// The packets that the oldest `upto` writes stand for, and whether they were joined.
fn written_by(coalescer: &mut Coalescer, upto: usize, offloads: Offloads, arena: &mut [u8]) -> Vec<(Vec<u8>, bool)> {
    let supers: Vec<_> = coalescer.finish(upto, arena).iter().map(|one| (one.vnet, one.slices.clone())).collect();
    coalescer.discard(upto);
    let mut arrived = Vec::new();
    for (vnet, slices) in supers {
        let bytes: Vec<u8> = slices.iter().flat_map(|range| arena[range.clone()].to_vec()).collect();
        assert!(slices.len() <= MOST_SLICES && bytes.len() <= LONGEST);
        let is_joined = slices.len() > 1;
        if is_joined {
            let protocol = Packet::decode(&bytes).expect("a whole packet").protocol();
            assert!(protocol == TCP && offloads.tcp || protocol == UDP && offloads.udp);
        }
        let pieces = written(&vnet, &bytes);
        assert_eq!(pieces.len(), slices.len());
        arrived.extend(pieces.into_iter().map(|piece| (piece, is_joined)));
    }
    arrived
}

//! Whole batches of both directions against the same packets and datagrams one by one.
//!
//! Two worlds are told the same; in one super-packets are cut, sealed into shared sends, received in runs, opened in place and
//! joined; in the other each packet goes by [`Engine::handle_tun`] and each datagram alone. The bytes on the wire are equal, the
//! packets that hosts get are, and so is all that the engines tell of themselves.

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering::Relaxed;

use fastpath::coalesce::{Coalescer, Offloads};
use fastpath::engine::Engine;
use fastpath::net_path::Receiver;
use fastpath::send_queue::SendQueue;
use fastpath::tun_path::FromTun;
use fastpath::virtio::VnetHeader;

use super::choices::Choices;
use super::kernel::{VNET_LEN, assert_same_packets, segments, super_packet, unsummed, written};
use super::streams::{Kind, Stream};
use super::wire::{ICMP, ICMPV6, Packet, TCP};
use super::world::{
    Account, MTU, OTHER, PEER, Side, Way, World, account, address, all_ends, assert_same_accounts, relay,
};

/// One read of the TUN device, and the packets that it stands for; `None` if no such read is a packet.
struct Read {
    vnet: [u8; VNET_LEN],
    bytes: Vec<u8>,
    packets: Option<Vec<Vec<u8>>>,
}

/// A datagram on the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Datagram {
    ecn: u8,
    is_relayed: bool,
    bytes: Vec<u8>,
}

struct Case<'a> {
    choices: Choices<'a>,
    batched: World,
    single: World,
    streams: Vec<(Way, Stream)>,
    from_tun: [FromTun; 2],
    receivers: [Receiver; 2],
    /// Of the client and of the gateway.
    uncounted: [Uncounted; 2],
    now: f64,
}

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let streams = streams(&mut choices);
    let (batched, single) = (World::new(), World::new());
    let (from_tun, receivers, uncounted) = Default::default();
    let mut case = Case { choices, batched, single, streams, from_tun, receivers, uncounted, now: 1.0 };
    for _ in 0..case.choices.within(1..=4) {
        case.change_something();
        let way = if case.choices.flag() { Way::Up } else { Way::Down };
        let sent = case.send(way);
        let arriving = case.on_the_wire(sent);
        case.receive(way, &arriving);
    }
}

fn streams(choices: &mut Choices) -> Vec<(Way, Stream)> {
    let mut streams = Vec::new();
    for ends in all_ends() {
        for way in [Way::Up, Way::Down] {
            let (source, mut destination) = ends.sent(way);
            if choices.one_in(12) {
                destination.set_port(destination.port() + 1); // a flow that nobody knows
            }
            let kind = match ends.protocol {
                TCP => Kind::Tcp,
                ICMP | ICMPV6 => Kind::Echo { is_reply: way == Way::Down },
                _ => Kind::Udp,
            };
            streams.push((way, Stream::new(choices, source, destination, kind)));
        }
    }
    streams
}

fn index(way: Way) -> usize {
    usize::from(way == Way::Down)
}

impl Case<'_> {
    /// What Python does while packets flow.
    fn change_something(&mut self) {
        self.now += self.choices.pick(&[0.0, 0.0, 0.01, 1.0, 30.0, 61.0]);
        let now = self.now;
        let number = self.choices.within(0..=all_ends().len() - 1);
        let what = self.choices.within(0..=9);
        for world in [&mut self.batched, &mut self.single] {
            match what {
                0 => world.rekey(if number.is_multiple_of(2) { PEER } else { OTHER }, now),
                1 => world.go(Some(0x4005)),
                2 => world.go(Some(0x4006)), // a channel that the receiver does not know
                3 => world.go(None),
                4 => {
                    world.client.remove_flow(number as u64);
                    world.gateway.remove_flow(number as u64);
                }
                5 => drop(world.gateway.remove_flows(PEER, Some(1))),
                6 => world.install(number, now),
                7 => drop(world.client.expire_flows(now, 100)),
                8 => {
                    world.client.remove_session(0x101);
                }
                _ => {}
            }
        }
    }

    /// Reads packets in one world and hands them over singly in the other; the datagrams are the same.
    fn send(&mut self, way: Way) -> Vec<Datagram> {
        let mut queue = SendQueue::new(!self.choices.one_in(6));
        let mut expected: Vec<(Option<SocketAddr>, SocketAddr, Vec<u8>)> = Vec::new();
        for _ in 0..self.choices.within(0..=24) {
            let Read { vnet, mut bytes, packets } = self.read(way);
            let (sender, _) = self.batched.engines(way);
            let header = VnetHeader::decode(&vnet);
            self.from_tun[index(way)].handle(sender, header, &mut bytes, self.now, &mut queue);
            let (sender, _) = self.single.engines(way);
            let uncounted = &mut self.uncounted[index(way)];
            match packets {
                Some(packets) => expected.extend(uncounted.one_by_one(sender, &packets, self.now)),
                None => uncounted.offload_refused += 1,
            }
            if self.choices.one_in(12) {
                self.change_something();
            }
        }
        let mut sent = Vec::new();
        let queue = queue.seal_all();
        for send in queue.sends() {
            for bytes in queue.datagrams(send) {
                let is_relayed = send.to.remote == relay();
                sent.push(Datagram { ecn: send.to.ecn, is_relayed, bytes: bytes.to_vec() });
            }
        }
        let expected: Vec<Vec<u8>> = expected.into_iter().map(|(_, _, bytes)| bytes).collect();
        assert!(sent.iter().map(|one| &one.bytes).eq(&expected), "datagrams differ");
        let (of_batched, of_single) = (account(self.batched.engines(way).0), account(self.single.engines(way).0));
        self.uncounted[index(way)].assert_same(of_batched, of_single);
        sent
    }

    fn read(&mut self, way: Way) -> Read {
        let choices = &mut self.choices;
        let at = choices.within(0..=self.streams.len() / 2 - 1) * 2 + index(way);
        let (_, stream) = &mut self.streams[at];
        let what = choices.within(0..=7);
        let can_be_cut = !matches!(stream.protocol(), ICMP | ICMPV6);
        match what {
            0..=3 if can_be_cut => {
                let (whole, size) = stream.super_packet(choices);
                let (vnet, bytes) = super_packet(&whole, size);
                let pieces = whole.payload.len().div_ceil(usize::from(size.max(1)));
                let is_good = size > 0 && pieces <= 2048;
                let packets = is_good.then(|| segments(&whole, usize::from(size)));
                Read { vnet, bytes, packets: packets.map(|all| all.iter().map(Packet::encode).collect()) }
            }
            4 if can_be_cut => {
                let packet = stream.packet(choices);
                let (vnet, bytes) = unsummed(&packet);
                Read { vnet, bytes, packets: Some(vec![packet.encode()]) }
            }
            5 => {
                let mut bytes = stream.packet(choices).encode();
                let at = choices.within(0..=bytes.len() - 1);
                bytes[at] ^= choices.byte();
                bytes.truncate(bytes.len() - choices.pick(&[0, 0, 0, 1, 20]).min(bytes.len()));
                Read { vnet: [0; VNET_LEN], packets: Some(vec![bytes.clone()]), bytes }
            }
            6 => {
                let bytes = choices.raw(64);
                Read { vnet: [0; VNET_LEN], packets: Some(vec![bytes.clone()]), bytes }
            }
            _ => {
                let bytes = stream.packet(choices).encode();
                Read { vnet: [0; VNET_LEN], packets: Some(vec![bytes.clone()]), bytes }
            }
        }
    }

    /// What a network does: losing, repeating, overtaking, changing, and letting strangers in.
    fn on_the_wire(&mut self, sent: Vec<Datagram>) -> Vec<Datagram> {
        let choices = &mut self.choices;
        let mut arriving = Vec::new();
        for mut one in sent {
            match choices.within(0..=39) {
                0 => continue,
                1 => arriving.push(one.clone()),
                2 => one.bytes.truncate(choices.within(0..=one.bytes.len())),
                3 => one.bytes.extend(choices.raw(9)),
                4 => {
                    let at = choices.within(0..=one.bytes.len().max(1) - 1);
                    one.bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= choices.byte());
                }
                5 => one.bytes = choices.raw(40),
                6 => one.bytes.clear(),
                7 => one.ecn = 3,
                8 => one.ecn = choices.byte() & 3,
                9 => one.is_relayed = !one.is_relayed,
                _ => {}
            }
            arriving.push(one);
            let last = arriving.len() - 1;
            if last > 0 && choices.one_in(40) {
                arriving.swap(last, last - 1);
            }
        }
        arriving
    }

    /// Receives in runs in one world and singly in the other; hosts get the same packets.
    fn receive(&mut self, way: Way, arriving: &[Datagram]) {
        let direct = address(if way == Way::Up { Side::Client } else { Side::Gateway });
        let local = address(if way == Way::Up { Side::Gateway } else { Side::Client });
        let from = |one: &Datagram| if one.is_relayed { relay() } else { direct };
        let offloads = Offloads { tcp: !self.choices.one_in(8), udp: !self.choices.one_in(8) };
        let mut coalescer = Coalescer::new(offloads);
        let (mut expected, mut arrived) = (Vec::new(), Vec::new());
        let mut rest = arriving;
        while !rest.is_empty() {
            let mut arena = Vec::new();
            for _ in 0..self.choices.within(1..=8) {
                let (run, after) = rest.split_at(run_len(&mut self.choices, rest));
                rest = after;
                let Some(first) = run.first() else { break };
                let (remote, ecn) = (from(first), first.ecn);
                let (range, stride) = lay_out(&mut self.choices, &mut arena, run);
                let (_, engine) = self.batched.engines(way);
                let receiver = &mut self.receivers[index(way)];
                receiver.handle(engine, local, remote, ecn, &mut arena, range, stride, self.now);
                for one in run {
                    let (_, engine) = self.single.engines(way);
                    expected.extend(received_alone(engine, local, remote, one, self.now));
                }
                if self.choices.one_in(4) {
                    self.receivers[index(way)].drain_into(&arena, &mut coalescer);
                    arrived.extend(written_by(&mut coalescer, Coalescer::closed, &mut arena));
                }
                if self.choices.one_in(12) {
                    self.change_something();
                }
            }
            self.receivers[index(way)].drain_into(&arena, &mut coalescer);
            arrived.extend(written_by(&mut coalescer, |coalescer| coalescer.len(), &mut arena));
        }
        assert_same_packets(&expected, &arrived);
        assert!(expected.iter().all(|packet| packet.len() <= MTU));
        let (of_batched, of_single) = (account(self.batched.engines(way).1), account(self.single.engines(way).1));
        self.uncounted[1 - index(way)].assert_same(of_batched, of_single);
    }
}

fn received_alone(engine: &Engine, local: SocketAddr, remote: SocketAddr, one: &Datagram, now: f64) -> Vec<Vec<u8>> {
    let (mut arena, len) = (one.bytes.clone(), one.bytes.len());
    let mut receiver = Receiver::default();
    receiver.handle(engine, local, remote, one.ecn, &mut arena, 0..len, len, now);
    receiver.take_packets(&arena)
}

/// How many of the first datagrams one receive may give: of one place and mark, of one size, the last perhaps shorter.
fn run_len(choices: &mut Choices, datagrams: &[Datagram]) -> usize {
    let Some(first) = datagrams.first() else { return 0 };
    let most = choices.pick(&[64, 64, 1, 2, 7]);
    let mut len = 1;
    for one in datagrams.iter().take(most).skip(1) {
        let is_alike = (one.ecn, one.is_relayed) == (first.ecn, first.is_relayed);
        if !is_alike || one.bytes.is_empty() || one.bytes.len() > first.bytes.len() {
            break;
        }
        len += 1;
        if one.bytes.len() < first.bytes.len() {
            break;
        }
    }
    len
}

/// Puts a run where a receive would, and says where and in strides of what.
fn lay_out(choices: &mut Choices, arena: &mut Vec<u8>, run: &[Datagram]) -> (Range<usize>, usize) {
    arena.extend(vec![0xdd; choices.within(0..=3)]);
    let start = arena.len();
    run.iter().for_each(|one| arena.extend(&one.bytes));
    let stride = run[0].bytes.len();
    // Without a stride told the kernel's is the length; a greater one means the same.
    let stride = if run.len() == 1 && choices.one_in(8) { stride + choices.within(0..=70_000) } else { stride };
    let end = arena.len();
    arena.extend(vec![0xdd; choices.within(0..=3)]); // what an earlier receive left there
    (start..end, stride)
}

fn written_by(coalescer: &mut Coalescer, upto: impl Fn(&Coalescer) -> usize, arena: &mut [u8]) -> Vec<(Vec<u8>, bool)> {
    let upto = upto(coalescer);
    let supers: Vec<_> = coalescer.finish(upto, arena).iter().map(|one| (one.vnet, one.slices.clone())).collect();
    coalescer.discard(upto);
    let mut arrived = Vec::new();
    for (vnet, slices) in supers {
        let bytes: Vec<u8> = slices.iter().flat_map(|range| arena[range.clone()].to_vec()).collect();
        arrived.extend(written(&vnet, &bytes).into_iter().map(|packet| (packet, slices.len() > 1)));
    }
    arrived
}

/// What a batch cannot do as single packets do, and counts.
#[derive(Default)]
struct Uncounted {
    offload_refused: u64,
    segments_dropped: u64,
}

impl Uncounted {
    /// Hands over the packets of one read. Of an unknown flow only the first one is looked at.
    fn one_by_one(
        &mut self,
        sender: &Engine,
        packets: &[Vec<u8>],
        now: f64,
    ) -> Vec<(Option<SocketAddr>, SocketAddr, Vec<u8>)> {
        let counters = &sender.counters;
        let (upcalls, too_long) = (counters.upcalls_packet.load(Relaxed), counters.packets_too_long.load(Relaxed));
        let mut sent = sender.handle_tun(&packets[0], now);
        if counters.upcalls_packet.load(Relaxed) > upcalls {
            self.segments_dropped += packets.len() as u64 - 1;
        } else if counters.packets_too_long.load(Relaxed) == too_long {
            sent.extend(packets[1..].iter().flat_map(|packet| sender.handle_tun(packet, now)));
        }
        sent
    }

    fn assert_same(&self, batched: Account, mut single: Account) {
        for (name, value) in &mut single.counters {
            match *name {
                "offload_refused" => *value += self.offload_refused,
                "segments_dropped_unknown_flow" => *value += self.segments_dropped,
                _ => {}
            }
        }
        assert_same_accounts(&batched, &single);
    }
}

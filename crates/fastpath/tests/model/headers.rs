//! What could hide a transport header from a filter, or send a packet elsewhere, and passes neither end of a tunnel.

use fastpath::engine::Engine;

use super::choices::Choices;
use super::streams::{Kind, Stream};
use super::wire::{Ip, Packet, TCP};
use super::world::{PEER, Side, Way, World, address, all_ends};

/// IANA's extension headers but ESP (whose contents only the receiver's keys reveal), and the fragment header.
const EXTENSIONS: [u8; 9] = [0, 43, 51, 60, 135, 139, 140, 253, 254];
const FRAGMENT: u8 = 44;

/// Why a packet must not pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    Malformed,
    Fragmented,
    ExtensionHeader,
    SourceRouted,
}

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let world = World::new();
    let number = choices.within(0..=all_ends().len() - 1);
    let ends = all_ends()[number];
    let way = if choices.flag() { Way::Up } else { Way::Down };
    let (source, destination) = ends.sent(way);
    let kind = if ends.protocol == TCP { Kind::Tcp } else { Kind::Udp };
    let packet = Stream::new(&mut choices, source, destination, kind).plain(&mut choices);
    let (bytes, reason) = match (packet.is_v6(), choices.within(0..=2)) {
        (true, 0) => fragment_v6(&mut choices, &packet),
        (true, _) => chained(&mut choices, &packet),
        (false, 0) => fragment_v4(&mut choices, packet.encode()),
        (false, _) => with_options(&mut choices, packet),
    };
    let Some(reason) = reason else { return };
    let (sender, receiver) = world.engines(way);
    refused(sender, reason, || assert!(sender.handle_tun(&bytes, 1.0).is_empty()));
    let (to, from) = if way == Way::Up { (Side::Gateway, Side::Client) } else { (Side::Client, Side::Gateway) };
    let sealed = sender.seal(PEER, &bytes, 1.0, true).expect("a session");
    let through = || assert!(receiver.handle_datagram(address(to), address(from), &sealed, 1.0).is_empty());
    refused(receiver, reason, through);
    refused(receiver, reason, || assert!(receiver.handle_inner(PEER, &bytes, 1.0).is_empty()));
}

/// Checks that nothing but one counter tells of the packet.
fn refused(engine: &Engine, reason: Reason, act: impl FnOnce()) {
    let expected = match reason {
        Reason::Malformed => "packets_malformed",
        Reason::Fragmented => "packets_fragmented",
        Reason::ExtensionHeader => "packets_extension_header",
        Reason::SourceRouted => "packets_source_routed",
    };
    engine.ring.poll(usize::MAX);
    let before: Vec<_> = engine.counters.each().collect();
    act();
    assert!(engine.ring.poll(usize::MAX).is_empty(), "Python does not decide about it");
    for ((name, before), (_, after)) in before.into_iter().zip(engine.counters.each()) {
        assert_eq!(after - before, u64::from(name == expected), "{name}");
    }
}

type Changed = (Vec<u8>, Option<Reason>);

/// Puts headers between that of IPv6 and that of the transport.
fn chained(choices: &mut Choices, packet: &Packet) -> Changed {
    let plain = packet.encode();
    let kinds: Vec<u8> = (0..choices.within(1..=10)).map(|_| choices.pick(&EXTENSIONS)).collect();
    let mut chain = Vec::new();
    for (at, kind) in kinds.iter().enumerate() {
        let next = kinds.get(at + 1).copied().unwrap_or(packet.protocol());
        let extra = choices.within(0..=2);
        // AH counts words of 4 bytes less 2, the others words of 8 bytes less 1; lies are as good.
        let len = if choices.one_in(4) { choices.byte() } else { extra as u8 };
        let bytes = if *kind == 51 { 8 + 4 * extra } else { 8 + 8 * extra };
        chain.extend([next, len]);
        chain.extend(choices.contents(bytes - 2));
    }
    let mut bytes = plain[..40].to_vec();
    bytes[6] = kinds[0];
    bytes[4..6].copy_from_slice(&((plain.len() - 40 + chain.len()) as u16).to_be_bytes());
    bytes.extend(chain);
    bytes.extend(&plain[40..]);
    (bytes, Some(Reason::ExtensionHeader))
}

fn fragment_v6(choices: &mut Choices, packet: &Packet) -> Changed {
    let plain = packet.encode();
    let mut bytes = plain[..40].to_vec();
    bytes[6] = FRAGMENT;
    bytes[4..6].copy_from_slice(&((plain.len() - 32) as u16).to_be_bytes());
    bytes.extend([packet.protocol(), 0]);
    // Also an "atomic fragment", which is the whole packet.
    bytes.extend(choices.word().to_be_bytes());
    bytes.extend([0, 0, 0, choices.byte()]);
    bytes.extend(&plain[40..]);
    (bytes, Some(Reason::Fragmented))
}

fn fragment_v4(choices: &mut Choices, mut bytes: Vec<u8>) -> Changed {
    let random = choices.word();
    let field = choices.pick(&[0x2000, 0x4000, 0x6000, 0x2001, 0x1fff, 1, 0, random]);
    let is_fragment = field & 0x2000 != 0 || field & 0x1fff != 0;
    bytes[6..8].copy_from_slice(&field.to_be_bytes());
    (bytes, is_fragment.then_some(Reason::Fragmented))
}

/// Puts options behind the IPv4 header, and says by RFC 791 whether they may pass.
fn with_options(choices: &mut Choices, mut packet: Packet) -> Changed {
    let mut list = Vec::new();
    while list.len() < 36 && !choices.one_in(6) {
        match choices.within(0..=6) {
            0 => list.push(1),
            1 => list.extend([131, 7, 4, 10, 9, 0, 9]),
            2 => list.extend([137, 11, 4, 10, 9, 0, 9, 10, 9, 0, 8]),
            3 => list.extend([7, 7, 4, 0, 0, 0, 0]),
            4 => list.extend([148, 4, 0, 0]),
            5 => list.extend([choices.byte(), choices.byte() & 15]),
            _ => list.push(0),
        }
    }
    list.truncate(40);
    list.resize(list.len().next_multiple_of(4), 0);
    let reason = reason_of(&list);
    if let Ip::V4 { options, .. } = &mut packet.ip {
        *options = list;
    }
    (packet.encode(), reason)
}

/// A list that cannot be walked to its end may hide anything from us and not from others.
pub fn reason_of(options: &[u8]) -> Option<Reason> {
    let mut at = 0;
    while at < options.len() {
        match options[at] {
            0 => return None,
            1 => at += 1,
            131 | 137 => return Some(Reason::SourceRouted),
            _ => match options.get(at + 1) {
                Some(len) if *len >= 2 && at + usize::from(*len) <= options.len() => at += usize::from(*len),
                _ => return Some(Reason::Malformed),
            },
        }
    }
    None
}

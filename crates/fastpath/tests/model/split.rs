//! A super-packet of the TUN device: cut as the kernel would have.

use fastpath::packet::Headers;
use fastpath::split::{Split, finish_checksum};
use fastpath::virtio::VnetHeader;

use super::choices::Choices;
use super::kernel::{segments, super_packet, unsummed};
use super::streams::{Kind, Stream};
use super::wire::{Packet, Transport};

/// More segments than this are not made of one read.
const MOST_SEGMENTS: usize = 2048;

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let is_v6 = choices.flag();
    let kind = if choices.flag() { Kind::Tcp } else { Kind::Udp };
    let (a, b) = if is_v6 { ("[fd00::1]:4000", "[fd00::2]:443") } else { ("10.0.0.1:4000", "10.0.0.2:443") };
    let mut stream = Stream::new(&mut choices, a.parse().unwrap(), b.parse().unwrap(), kind);
    stream.packet(&mut choices);
    let (whole, size) = stream.super_packet(&mut choices);
    cut_as_the_kernel_does(&whole, size, choices.within(0..=4));
    summed_as_the_sender_would(&stream.packet(&mut choices));
    no_other_kind_is_cut(&whole, size, choices.byte());
}

fn cut_as_the_kernel_does(whole: &Packet, size: u16, padding: usize) {
    let (vnet, mut bytes) = super_packet(whole, size);
    bytes.extend(vec![0xee; padding]); // the read may be longer than the packet
    let headers = Headers::parse(&bytes).expect("a whole packet");
    let split = Split::new(&VnetHeader::decode(&vnet), &headers);
    let expected = segments(whole, usize::from(size).max(1));
    if size == 0 || expected.len() > MOST_SEGMENTS {
        assert!(split.is_err());
        return;
    }
    let split = split.expect("what the kernel gives can be cut");
    assert_eq!(split.segments, expected.len());
    assert_eq!(split.longest(), expected[0].len());
    assert_eq!(split.total(), expected.iter().map(Packet::len).sum::<usize>());
    for (index, expected) in expected.iter().enumerate() {
        let mut piece = vec![0xaa; split.len(index)];
        split.write(&bytes, index, &mut piece);
        assert_eq!(piece, expected.encode(), "segment {index} of {}", split.segments);
    }
}

fn summed_as_the_sender_would(packet: &Packet) {
    if matches!(packet.transport, Transport::Echo { .. }) {
        return;
    }
    let (vnet, mut bytes) = unsummed(packet);
    finish_checksum(&VnetHeader::decode(&vnet), &mut bytes).expect("the field is inside");
    assert_eq!(bytes, packet.encode());
}

/// A header that does not fit the packet is refused.
fn no_other_kind_is_cut(whole: &Packet, size: u16, kind: u8) {
    let (mut vnet, bytes) = super_packet(whole, size.max(1));
    let fits = vnet[1] == kind & 0x7f;
    vnet[1] = kind;
    let headers = Headers::parse(&bytes).expect("a whole packet");
    let split = Split::new(&VnetHeader::decode(&vnet), &headers);
    assert!(fits || split.is_err());
}

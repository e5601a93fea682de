//! The send queue: what is appended leaves whole and in order, in sends that the kernel takes.

use std::collections::VecDeque;
use std::net::SocketAddr;

use fastpath::send_queue::{Destination, Sealed, SendQueue};

use super::choices::Choices;

/// `UDP_MAX_SEGMENTS` of kernels before 6.9.
const MOST_SEGMENTS: usize = 64;
const LONGEST_SEND: usize = 65_507;

pub fn check(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut gso = choices.flag();
    let mut queue = SendQueue::new(gso);
    let mut waiting: VecDeque<(Destination, Vec<u8>)> = VecDeque::new();
    for _ in 0..choices.within(0..=40) {
        match choices.within(0..=9) {
            0 => {
                gso = choices.flag();
                queue.set_gso(gso);
            }
            1 => take(&mut queue, &mut waiting, usize::MAX),
            2 => {
                let closed = queue.closed();
                take(&mut queue, &mut waiting, closed);
            }
            _ => append(&mut choices, &mut queue, &mut waiting),
        }
        assert_sends(&queue.seal_all());
    }
    take(&mut queue, &mut waiting, usize::MAX);
    assert!(queue.is_empty() && waiting.is_empty());
}

fn append(choices: &mut Choices, queue: &mut SendQueue, waiting: &mut VecDeque<(Destination, Vec<u8>)>) {
    let remote: SocketAddr = choices.pick(&["192.0.2.1:1", "192.0.2.1:2", "[2001:db8::1]:1"]).parse().unwrap();
    let local = choices.one_in(6).then(|| "192.0.2.9:52625".parse().unwrap());
    let to = Destination { local, remote, ecn: choices.pick(&[0, 0, 0, 2, 3]) };
    let len = match choices.within(0..=5) {
        0 => choices.within(0..=1316),
        1 => choices.pick(&[0, 1, 2000, 40_000, LONGEST_SEND]),
        _ => 1312,
    };
    for at in 0..if choices.one_in(4) { choices.within(1..=150) } else { 1 } {
        // A shorter one in the midst of a run.
        let len = if at > 0 && choices.one_in(40) { len / 2 } else { len };
        let contents = choices.contents(len);
        queue.append(to, len).copy_from_slice(&contents);
        waiting.push_back((to, contents));
    }
}

/// Takes the first `upto` sends as a socket would, and compares.
fn take(queue: &mut SendQueue, waiting: &mut VecDeque<(Destination, Vec<u8>)>, upto: usize) {
    let upto = upto.min(queue.len());
    let sealed = queue.seal(upto);
    for send in sealed.sends() {
        for datagram in sealed.datagrams(send) {
            let (to, contents) = waiting.pop_front().expect("no more leaves than was put in");
            assert_eq!((send.to, datagram), (to, &contents[..]));
        }
    }
    queue.discard(upto);
}

fn assert_sends(queue: &Sealed<'_>) {
    for send in queue.sends() {
        let len = queue.payload(send).len();
        assert!(send.segments <= MOST_SEGMENTS);
        assert!(len <= LONGEST_SEND || send.segments == 1);
        assert!(len <= send.segment * send.segments);
        assert!(send.segments == 1 || len > send.segment * (send.segments - 1), "all but the last are whole");
        assert!(send.segments == 1 || send.segment > 0);
    }
}

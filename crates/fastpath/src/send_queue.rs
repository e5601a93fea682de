//! Datagrams on their way out, gathered into as few sends as the kernel allows (UDP GSO).

use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;

use crate::session::Session;

/// The kernel cuts one send into at most so many datagrams.
const MAX_SEGMENTS: usize = 64;
/// The longest payload of one UDP send over IPv4.
const MAX_SEND: usize = 65507;
/// So much waiting is worth a send at once: as much as one send can take.
const FULL: usize = MAX_SEND - 2048;

/// Where a datagram goes and with which ECN mark; only equal ones share a send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Destination {
    pub local: Option<SocketAddr>,
    pub remote: SocketAddr,
    pub ecn: u8,
}

/// One send: datagrams of `segment` bytes each, the last one perhaps shorter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Send {
    pub to: Destination,
    pub segment: usize,
    pub segments: usize,
    range: Range<usize>,
}

/// Successive messages of one length and one session that lie at equal distances.
struct Unsealed {
    session: Arc<Session>,
    first_counter: u64,
    start: usize,
    stride: usize,
    len: usize,
    count: usize,
}

impl Unsealed {
    /// Whether the message at `next` is the one behind these.
    fn continues(&self, next: &Unsealed) -> bool {
        Arc::ptr_eq(&self.session, &next.session)
            && self.first_counter + self.count as u64 == next.first_counter
            && self.start + self.count * self.stride == next.start
            && (self.stride, self.len) == (next.stride, next.len)
    }
}

/// Datagrams are sealed when they are sent, so that as many as there are of one length are sealed together.
pub struct SendQueue {
    /// Kept at its greatest length, so that nothing is zeroed or allocated twice.
    arena: Vec<u8>,
    used: usize,
    sends: Vec<Send>,
    /// Messages that are still to be sealed, in order.
    unsealed: Vec<Unsealed>,
    max_segments: usize,
}

/// The oldest sends of a queue, sealed: nothing else can be read from it.
pub struct Sealed<'a> {
    arena: &'a [u8],
    sends: &'a [Send],
}

impl SendQueue {
    /// Without `gso` each datagram is a send of its own.
    #[must_use]
    pub fn new(gso: bool) -> Self {
        let mut queue = Self { arena: Vec::new(), used: 0, sends: Vec::new(), unsealed: Vec::new(), max_segments: 1 };
        queue.set_gso(gso);
        queue
    }

    pub fn set_gso(&mut self, gso: bool) {
        self.max_segments = if gso { MAX_SEGMENTS } else { 1 };
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sends.is_empty()
    }

    /// Whether it is time to send, more would only add delay.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.used >= FULL
    }

    /// Appends a datagram of `len` bytes and returns the room for it, holding arbitrary bytes.
    ///
    /// Only the newest send is ever extended, so the order of datagrams is that of the calls.
    pub fn append(&mut self, to: Destination, len: usize) -> &mut [u8] {
        let range = self.used..self.used + len;
        if self.arena.len() < range.end {
            self.arena.resize(range.end.max(2 * self.arena.len()), 0);
        }
        self.used = range.end;
        match self.sends.last_mut() {
            Some(send) if send.to == to && send.has_room(len, self.max_segments) => {
                send.range.end = range.end;
                send.segments += 1;
            }
            _ => self.sends.push(Send { to, segment: len, segments: 1, range: range.clone() }),
        }
        &mut self.arena[range]
    }

    /// As [`Self::append`] for a message of `len` bytes behind `front` bytes, to be sealed with this session and counter.
    pub fn append_message(
        &mut self,
        to: Destination,
        front: usize,
        len: usize,
        session: &Arc<Session>,
        counter: u64,
    ) -> &mut [u8] {
        let (start, stride) = (self.used + front, front + len);
        let next = Unsealed { session: Arc::clone(session), first_counter: counter, start, stride, len, count: 1 };
        match self.unsealed.last_mut() {
            Some(run) if run.continues(&next) => run.count += 1,
            _ => self.unsealed.push(next),
        }
        self.append(to, front + len)
    }

    /// Seals the oldest `upto` sends.
    pub fn seal(&mut self, upto: usize) -> Sealed<'_> {
        let end = self.sends[..upto].last().map_or(0, |send| send.range.end);
        let mut starts = Vec::new();
        let mut whole_runs = 0;
        for run in self.unsealed.iter_mut().take_while(|run| run.start < end) {
            let count = run.count.min((end - run.start).div_ceil(run.stride));
            starts.clear();
            starts.extend((0..count).map(|index| run.start + index * run.stride));
            run.session.seal_run(run.first_counter, &mut self.arena, &starts, run.len);
            run.first_counter += count as u64;
            run.start += count * run.stride;
            run.count -= count;
            whole_runs += usize::from(run.count == 0);
        }
        self.unsealed.drain(..whole_runs);
        Sealed { arena: &self.arena, sends: &self.sends[..upto] }
    }

    /// Seals all of it.
    pub fn seal_all(&mut self) -> Sealed<'_> {
        self.seal(self.sends.len())
    }

    /// How many sends, from the oldest, no further datagram of the same size could join.
    #[must_use]
    pub fn closed(&self) -> usize {
        match self.sends.last() {
            Some(newest) if newest.has_room(newest.segment, self.max_segments) => self.sends.len() - 1,
            _ => self.sends.len(),
        }
    }

    /// How many sends there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sends.len()
    }

    /// Forgets the oldest `count` sends, which were sealed.
    pub fn discard(&mut self, count: usize) {
        self.sends.drain(..count);
        let start = self.sends.first().map_or(self.used, |send| send.range.start);
        if start == 0 {
            return;
        }
        self.arena.copy_within(start..self.used, 0);
        self.used -= start;
        for send in &mut self.sends {
            send.range = send.range.start - start..send.range.end - start;
        }
        for run in &mut self.unsealed {
            run.start -= start;
        }
    }
}

impl<'a> Sealed<'a> {
    /// The sends in order.
    #[must_use]
    pub fn sends(&self) -> &'a [Send] {
        self.sends
    }

    #[must_use]
    pub fn payload(&self, send: &Send) -> &'a [u8] {
        &self.arena[send.range.clone()]
    }

    /// The datagrams of a send, one by one.
    pub fn datagrams(&self, send: &Send) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (payload, segment) = (self.payload(send), send.segment);
        // Not `chunks`, which has none of an empty payload: an empty datagram is a datagram.
        (0..send.segments).map(move |at| &payload[at * segment..((at + 1) * segment).min(payload.len())])
    }
}

impl Send {
    fn has_room(&self, len: usize, max_segments: usize) -> bool {
        len > 0
            && self.segments < max_segments
            && len <= self.segment
            && self.range.len() == self.segments * self.segment
            && self.range.len() + len <= MAX_SEND
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn to(port: u16) -> Destination {
        Destination { local: None, remote: ([10, 0, 0, 1], port).into(), ecn: 0 }
    }

    proptest! {
        #[test]
        fn datagrams_leave_whole_and_in_order(
            datagrams in proptest::collection::vec((1u16..3, 0usize..2000, any::<u8>()), 0..300),
            gso: bool,
        ) {
            let mut queue = SendQueue::new(gso);
            for (port, len, fill) in &datagrams {
                queue.append(to(*port), *len).fill(*fill);
            }
            let mut sent = Vec::new();
            let queue = queue.seal_all();
            for send in queue.sends() {
                prop_assert!(send.segments <= MAX_SEGMENTS && queue.payload(send).len() <= MAX_SEND);
                prop_assert_eq!(queue.datagrams(send).count(), send.segments);
                sent.extend(queue.datagrams(send).map(|d| (send.to.remote.port(), d.len(), d.first().copied())));
            }
            let expected: Vec<_> =
                datagrams.iter().map(|(port, len, fill)| (*port, *len, (*len > 0).then_some(*fill))).collect();
            prop_assert_eq!(sent, expected);
        }
    }

    #[test]
    fn what_is_not_sent_yet_moves_to_the_front() {
        let mut queue = SendQueue::new(true);
        for fill in 0..60 {
            queue.append(to(1), 1300).fill(fill);
        }
        assert_eq!((queue.closed(), queue.is_full()), (1, true));

        queue.discard(1);
        queue.append(to(1), 1300).fill(60);

        let sealed = queue.seal_all();
        let left: Vec<u8> = sealed.datagrams(&sealed.sends()[0]).map(|datagram| datagram[0]).collect();
        assert_eq!(left, (50..=60).collect::<Vec<u8>>());
        queue.discard(1);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_shorter_datagram_ends_its_send() {
        let mut queue = SendQueue::new(true);
        for len in [100, 100, 60, 60, 100] {
            queue.append(to(1), len);
        }
        let shape: Vec<_> = queue.seal_all().sends().iter().map(|send| (send.segment, send.segments)).collect();
        assert_eq!(shape, [(100, 3), (60, 1), (100, 1)]);
    }
}

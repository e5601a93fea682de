//! A wire with a length: carries whole frames between two TAP devices, each a fixed time after it came in.
//!
//! The lab needs delay on kernels without netem. Frames carry their virtio header, so a super-packet crosses as one and
//! its checksum stays offloaded. One thread per wire does both directions; it sleeps on the devices and on a timer.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::Duration;

use fastpath::upcall::Signal;

use crate::event::Event;

/// A virtio header and the largest frame a TAP device gives: 64 KiB of IP packet with its Ethernet and VLAN headers.
const MAX_FRAME: usize = 12 + 65_535 + 18;

/// How many frames one direction may take in before the other direction and the timer get their turn.
const BATCH: usize = 64;

/// What one direction of a wire has carried.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DirectionCounters {
    /// Frames that were written at the far end.
    pub frames: u64,
    /// Their bytes, virtio headers included.
    pub bytes: u64,
    /// Frames dropped because the wire was full.
    pub overflowed: u64,
    /// Frames that the far end did not take, for instance because its interface is down.
    pub refused: u64,
    /// The longest that a frame was late, in nanoseconds.
    pub max_late_ns: u64,
}

#[derive(Default)]
struct SharedCounters {
    frames: AtomicU64,
    bytes: AtomicU64,
    overflowed: AtomicU64,
    refused: AtomicU64,
    max_late_ns: AtomicU64,
}

impl SharedCounters {
    fn read(&self) -> DirectionCounters {
        DirectionCounters {
            frames: self.frames.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            overflowed: self.overflowed.load(Relaxed),
            refused: self.refused.load(Relaxed),
            max_late_ns: self.max_late_ns.load(Relaxed),
        }
    }
}

#[derive(Default)]
struct Shared {
    delay_ns: AtomicU64,
    stopped: AtomicBool,
    counters: [SharedCounters; 2],
}

/// A running wire; it ends when this value is dropped.
pub struct DelayLine {
    shared: Arc<Shared>,
    wake: Event,
    thread: Option<JoinHandle<()>>,
}

impl DelayLine {
    /// Starts carrying frames between two descriptors that read and write one frame per call.
    ///
    /// `limit_bytes` bounds what is under way in each direction; a frame that does not fit is dropped and counted.
    ///
    /// # Errors
    /// The kernel gave no timer, no event descriptor or no thread.
    pub fn start(first: OwnedFd, second: OwnedFd, delay: Duration, limit_bytes: usize) -> io::Result<Self> {
        let ends = [File::from(first), File::from(second)];
        for end in &ends {
            set_nonblocking(end.as_raw_fd())?;
        }
        let shared = Arc::new(Shared::default());
        shared.delay_ns.store(nanoseconds(delay), Relaxed);
        let wake = Event::new()?;
        let mut wire = Wire {
            shared: Arc::clone(&shared),
            wake: wake.clone(),
            timer: Timer::new()?,
            directions: [Direction::new(limit_bytes), Direction::new(limit_bytes)],
            ends,
            buffer: vec![0; MAX_FRAME],
        };
        let thread = std::thread::Builder::new().name("delay-line".to_owned()).spawn(move || wire.run())?;
        Ok(Self { shared, wake, thread: Some(thread) })
    }

    /// Sets the delay of the frames that come in from now on. Frames never overtake each other.
    pub fn set_delay(&self, delay: Duration) {
        self.shared.delay_ns.store(nanoseconds(delay), Relaxed);
    }

    /// What went from the first to the second descriptor, and back.
    pub fn counters(&self) -> [DirectionCounters; 2] {
        [self.shared.counters[0].read(), self.shared.counters[1].read()]
    }

    /// Ends the wire and closes both descriptors; frames under way are lost.
    pub fn stop(&mut self) {
        self.shared.stopped.store(true, Relaxed);
        self.wake.raise();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for DelayLine {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Another descriptor of the same open file, for [`DelayLine::start`] to keep.
///
/// # Errors
/// `descriptor` is not open.
pub fn duplicate(descriptor: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no pointers, and refuses a descriptor that is not open.
    owned(unsafe { libc::fcntl(descriptor, libc::F_DUPFD_CLOEXEC, 0) }).map(OwnedFd::from)
}

struct Frame {
    due_ns: u64,
    bytes: Box<[u8]>,
}

struct Direction {
    queue: VecDeque<Frame>,
    queued_bytes: usize,
    limit_bytes: usize,
}

impl Direction {
    fn new(limit_bytes: usize) -> Self {
        Self { queue: VecDeque::new(), queued_bytes: 0, limit_bytes }
    }

    fn push(&mut self, bytes: &[u8], due_ns: u64, counters: &SharedCounters) {
        if self.queued_bytes + bytes.len() > self.limit_bytes {
            counters.overflowed.fetch_add(1, Relaxed);
            return;
        }
        self.queued_bytes += bytes.len();
        self.queue.push_back(Frame { due_ns, bytes: bytes.into() });
    }

    /// Writes what is due; the time of what is next.
    fn deliver(&mut self, end: &File, counters: &SharedCounters) -> Option<u64> {
        while let Some(frame) = self.queue.front() {
            let now = monotonic_ns();
            if frame.due_ns > now {
                return Some(frame.due_ns);
            }
            let frame = self.queue.pop_front()?;
            self.queued_bytes -= frame.bytes.len();
            if (&mut &*end).write(&frame.bytes).is_ok() {
                counters.frames.fetch_add(1, Relaxed);
                counters.bytes.fetch_add(frame.bytes.len() as u64, Relaxed);
                counters.max_late_ns.fetch_max(now - frame.due_ns, Relaxed);
            } else {
                counters.refused.fetch_add(1, Relaxed);
            }
        }
        None
    }
}

/// The thread's side of a [`DelayLine`]. Direction 0 reads end 0 and writes end 1, direction 1 the other way round.
struct Wire {
    shared: Arc<Shared>,
    wake: Event,
    timer: Timer,
    directions: [Direction; 2],
    ends: [File; 2],
    buffer: Vec<u8>,
}

impl Wire {
    fn run(&mut self) {
        while !self.shared.stopped.load(Relaxed) {
            for index in 0..2 {
                if self.take_in(index).is_err() {
                    return;
                }
            }
            let next = (0..2)
                .filter_map(|index| self.directions[index].deliver(&self.ends[1 - index], &self.shared.counters[index]))
                .min();
            if self.timer.set(next).is_err() || self.wait().is_err() {
                return;
            }
        }
    }

    /// Reads frames until there are none, or one batch is full.
    ///
    /// # Errors
    /// The device is gone.
    fn take_in(&mut self, index: usize) -> io::Result<()> {
        let counters = &self.shared.counters[index];
        for _ in 0..BATCH {
            match (&self.ends[index]).read(&mut self.buffer) {
                Ok(length) => {
                    let due_ns = monotonic_ns() + self.shared.delay_ns.load(Relaxed);
                    self.directions[index].push(&self.buffer[..length], due_ns, counters);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn wait(&mut self) -> io::Result<()> {
        let [first, second] = [self.ends[0].as_raw_fd(), self.ends[1].as_raw_fd()];
        let sources = [first, second, self.timer.file.as_raw_fd(), self.wake.fd()];
        let mut polled = sources.map(|fd| libc::pollfd { fd, events: libc::POLLIN, revents: 0 });
        // SAFETY: the pointer and the length describe `polled`, which lives until the call returns.
        let ready = unsafe { libc::poll(polled.as_mut_ptr(), polled.len() as libc::nfds_t, -1) };
        if ready < 0 {
            let error = io::Error::last_os_error();
            return if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) };
        }
        let broken = libc::POLLNVAL | libc::POLLERR;
        if polled[..2].iter().any(|entry| entry.revents & broken != 0) {
            return Err(ErrorKind::BrokenPipe.into());
        }
        Ok(())
    }
}

/// A kernel timer that is set to a moment; reading it is not needed, since setting it again clears it.
struct Timer {
    file: File,
    set_to: Option<u64>,
}

impl Timer {
    fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) };
        Ok(Self { file: owned(descriptor)?, set_to: None })
    }

    fn set(&mut self, at_ns: Option<u64>) -> io::Result<()> {
        if at_ns == self.set_to {
            return Ok(());
        }
        let moment = at_ns.unwrap_or(0);
        let value = libc::itimerspec {
            it_interval: libc::timespec { tv_sec: 0, tv_nsec: 0 },
            it_value: libc::timespec {
                tv_sec: (moment / 1_000_000_000) as libc::time_t,
                tv_nsec: (moment % 1_000_000_000) as libc::c_long,
            },
        };
        // SAFETY: `value` lives until the call returns, and the kernel may leave the old value out.
        let result = unsafe {
            libc::timerfd_settime(self.file.as_raw_fd(), libc::TFD_TIMER_ABSTIME, &value, std::ptr::null_mut())
        };
        if result < 0 {
            return Err(io::Error::last_os_error());
        }
        self.set_to = at_ns;
        Ok(())
    }
}

fn owned(descriptor: RawFd) -> io::Result<File> {
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor and nothing else knows it.
    Ok(unsafe { File::from_raw_fd(descriptor) })
}

fn set_nonblocking(descriptor: RawFd) -> io::Result<()> {
    // SAFETY: neither call takes pointers.
    let result = unsafe {
        let flags = libc::fcntl(descriptor, libc::F_GETFL);
        if flags < 0 { flags } else { libc::fcntl(descriptor, libc::F_SETFL, flags | libc::O_NONBLOCK) }
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn monotonic_ns() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills `time`, which lives until the call returns; this clock always exists.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 2)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::time::Instant;

    use super::*;

    const DELAY: Duration = Duration::from_millis(20);

    struct Setup {
        left: UnixDatagram,
        right: UnixDatagram,
        line: DelayLine,
    }

    fn setup(delay: Duration, limit_bytes: usize) -> Setup {
        let (left, first) = UnixDatagram::pair().unwrap();
        let (right, second) = UnixDatagram::pair().unwrap();
        for outer in [&left, &right] {
            outer.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        }
        let line = DelayLine::start(first.into(), second.into(), delay, limit_bytes).unwrap();
        Setup { left, right, line }
    }

    fn receive(from: &UnixDatagram) -> Vec<u8> {
        let mut buffer = vec![0; MAX_FRAME];
        let length = from.recv(&mut buffer).unwrap();
        buffer.truncate(length);
        buffer
    }

    #[test]
    fn frames_arrive_whole_in_order_and_not_before_their_time() {
        let Setup { left, right, line } = setup(DELAY, 1 << 20);
        let large = vec![7; 60_000];

        let sent = Instant::now();
        left.send(b"one").unwrap();
        left.send(&large).unwrap();
        left.send(b"three").unwrap();

        assert_eq!(receive(&right), b"one");
        assert!(sent.elapsed() >= DELAY);
        assert_eq!(receive(&right), large);
        assert_eq!(receive(&right), b"three");
        drop(line);
    }

    #[test]
    fn both_directions_are_alike_and_counted_apart() {
        let Setup { left, right, line } = setup(Duration::ZERO, 1 << 20);

        left.send(b"hello").unwrap();
        assert_eq!(receive(&right), b"hello");
        right.send(b"hi").unwrap();
        assert_eq!(receive(&left), b"hi");
        right.send(b"ho").unwrap();
        assert_eq!(receive(&left), b"ho");

        let mut line = line;
        line.stop();
        let [there, back] = line.counters();
        assert_eq!((there.frames, there.bytes), (1, 5));
        assert_eq!((back.frames, back.bytes), (2, 4));
    }

    #[test]
    fn frame_that_does_not_fit_is_dropped_and_counted() {
        let Setup { left, right, line } = setup(DELAY, 10);

        left.send(b"12345678").unwrap();
        left.send(b"too many").unwrap();
        left.send(b"9").unwrap();

        assert_eq!(receive(&right), b"12345678");
        assert_eq!(receive(&right), b"9");
        assert_eq!(line.counters()[0].overflowed, 1);
    }

    #[test]
    fn shorter_delay_does_not_let_frames_overtake() {
        let Setup { left, right, line } = setup(DELAY, 1 << 20);

        left.send(b"first").unwrap();
        // The first frame must be inside before the delay changes, and only the counter of the other way can tell.
        right.send(b"marker").unwrap();
        assert_eq!(receive(&left), b"marker");
        line.set_delay(Duration::ZERO);
        left.send(b"second").unwrap();

        assert_eq!(receive(&right), b"first");
        assert_eq!(receive(&right), b"second");
    }

    #[test]
    fn stopping_closes_the_ends_at_once() {
        let Setup { left, line, .. } = setup(Duration::from_secs(60), 1 << 20);
        left.send(b"under way").unwrap();

        drop(line);

        assert!(left.send(b"nobody there").is_err());
    }
}

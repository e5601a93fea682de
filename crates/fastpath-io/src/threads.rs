//! Two threads around an engine: TUN to network, and network to TUN.

use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc::{Receiver as Finished, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use fastpath::coalesce::{Coalescer, Offloads, Super};
use fastpath::counters::{add, count};
use fastpath::engine::{Datagram, Engine};
use fastpath::net_path::Receiver;
use fastpath::packet::Headers;
use fastpath::send_queue::{Destination, Sealed, SendQueue};
use fastpath::split::Split;
use fastpath::tun_path::FromTun;
use fastpath::upcall::Signal;
use fastpath::virtio::{VNET_HEADER_LEN, VnetHeader};

use crate::event::Event;
use crate::io_counters::IoCounters;
use crate::tun::{MAX_READ, Tun};
use crate::udp::{MAX_RECEIVES, Receive, SLOT, UdpSocket};
use crate::{monotonic, wait};

/// After so many bytes received the packets opened so far are written, so that neither side waits for the other; all but what
/// the next packet may still join.
const WRITE_AFTER: usize = 64 * 1024;
/// After so many reads the datagrams sealed so far are sent.
const READS_PER_SEND: usize = 64;
/// How long replaced sockets are waited for.
const REBIND_WAIT: Duration = Duration::from_millis(500);

/// Which offloads of UDP may be used.
#[derive(Debug, Clone, Copy)]
pub struct UdpOffloads {
    pub gso: bool,
    pub gro: bool,
}

#[derive(Default)]
struct Sockets {
    v4: Option<UdpSocket>,
    v6: Option<UdpSocket>,
}

impl Sockets {
    fn new(v4: Option<RawFd>, v6: Option<RawFd>, offloads: UdpOffloads) -> io::Result<Self> {
        let take =
            |fd: Option<RawFd>| fd.map(|fd| UdpSocket::new(duplicate(fd)?, offloads.gso, offloads.gro)).transpose();
        Ok(Self { v4: take(v4)?, v6: take(v6)? })
    }

    /// Sends everything and returns how many datagrams the kernel took.
    fn send(&self, queue: &Sealed<'_>, counters: &IoCounters) -> usize {
        let mut sent = 0;
        for (socket, is_v6) in [(&self.v4, false), (&self.v6, true)] {
            match socket {
                Some(socket) => sent += socket.send(queue, counters),
                None => {
                    let homeless = queue.sends().iter().filter(|send| send.to.remote.is_ipv6() == is_v6);
                    add(&counters.udp_no_socket, homeless.map(|send| send.segments).sum());
                }
            }
        }
        sent
    }

    fn has_gso(&self) -> bool {
        self.v4.as_ref().is_some_and(UdpSocket::has_gso) || self.v6.as_ref().is_some_and(UdpSocket::has_gso)
    }
}

struct Shared {
    engine: Arc<Engine>,
    /// Let go of at the end, so that the interface can be closed.
    tun: ArcSwapOption<Tun>,
    sockets: ArcSwap<Sockets>,
    offloads: UdpOffloads,
    coalesces: AtomicBool,
    is_stopping: AtomicBool,
    /// Raised once and never cleared.
    stop: Event,
    rebound: Event,
    counters: IoCounters,
    failure: Mutex<Option<String>>,
}

impl Shared {
    fn failure(&self) -> MutexGuard<'_, Option<String>> {
        self.failure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub struct TunnelIo {
    shared: Arc<Shared>,
    running: Mutex<Vec<(JoinHandle<()>, Finished<()>)>>,
}

impl TunnelIo {
    /// Prepares the threads; the sockets are duplicated.
    ///
    /// # Errors
    /// If a socket is not usable.
    pub fn new(
        engine: Arc<Engine>,
        tun: Arc<Tun>,
        udp4: Option<RawFd>,
        udp6: Option<RawFd>,
        offloads: UdpOffloads,
    ) -> io::Result<Self> {
        let shared = Shared {
            engine,
            tun: ArcSwapOption::new(Some(tun)),
            sockets: ArcSwap::from_pointee(Sockets::new(udp4, udp6, offloads)?),
            offloads,
            coalesces: AtomicBool::new(true),
            is_stopping: AtomicBool::new(false),
            stop: Event::new()?,
            rebound: Event::new()?,
            counters: IoCounters::default(),
            failure: Mutex::default(),
        };
        Ok(Self { shared: Arc::new(shared), running: Mutex::default() })
    }

    /// Starts the threads; a second call does nothing.
    ///
    /// # Errors
    /// If they were stopped before, or the system has no threads left.
    pub fn start(&self) -> io::Result<()> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let tun = self.shared.tun.load_full().ok_or_else(|| io::Error::other("the threads were stopped"))?;
        if running.is_empty() {
            running.push(spawn("tun-to-net", &self.shared, &tun, tun_to_net)?);
            running.push(spawn("net-to-tun", &self.shared, &tun, net_to_tun)?);
        }
        Ok(())
    }

    /// Ends the threads for good, waiting for each at most `timeout`, and lets go of the device and the sockets.
    pub fn stop(&self, timeout: Duration) {
        self.shared.is_stopping.store(true, Relaxed);
        self.shared.stop.raise();
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        for (thread, finished) in running.drain(..) {
            if finished.recv_timeout(timeout).is_ok() {
                // Its outcome was noted by itself.
                let _ = thread.join();
            }
        }
        self.shared.tun.store(None);
        self.shared.sockets.store(Arc::default());
    }

    /// Sends datagrams and returns how many the kernel took.
    #[must_use]
    pub fn send(&self, datagrams: &[Datagram]) -> usize {
        let sockets = self.shared.sockets.load();
        let mut queue = SendQueue::new(sockets.has_gso());
        for (local, remote, payload) in datagrams {
            let to = Destination { local: *local, remote: *remote, ecn: 0 };
            queue.append(to, payload.len()).copy_from_slice(payload);
        }
        sockets.send(&queue.seal_all(), &self.shared.counters)
    }

    /// Writes packets to the TUN device and returns how many it took.
    #[must_use]
    pub fn write_tun(&self, packets: &[Vec<u8>]) -> usize {
        let tun = self.shared.tun.load_full();
        tun.map_or(0, |tun| packets.iter().filter(|packet| write_packet(&self.shared, &tun, packet)).count())
    }

    /// Replaces the sockets, waiting a little until the threads let go of the old ones.
    ///
    /// # Errors
    /// If a socket is not usable; then the old ones stay.
    pub fn rebind(&self, udp4: Option<RawFd>, udp6: Option<RawFd>) -> io::Result<()> {
        let fresh = Sockets::new(udp4, udp6, self.shared.offloads)?;
        let old = Arc::downgrade(&self.shared.sockets.swap(Arc::new(fresh)));
        self.shared.rebound.raise();
        let until = Instant::now() + REBIND_WAIT;
        while old.strong_count() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    #[must_use]
    pub fn failure(&self) -> Option<String> {
        self.shared.failure().clone()
    }

    pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.shared.counters.each()
    }
}

impl Drop for TunnelIo {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(1));
    }
}

type Body = fn(&Shared, &Tun) -> io::Result<()>;

fn spawn(name: &str, shared: &Arc<Shared>, tun: &Arc<Tun>, body: Body) -> io::Result<(JoinHandle<()>, Finished<()>)> {
    let (shared, tun) = (Arc::clone(shared), Arc::clone(tun));
    let (finished, wait): (Sender<()>, Finished<()>) = channel();
    let name_of_thread = name.to_owned();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| body(&shared, &tun)));
        let why = match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(format!("{name_of_thread}: {error}")),
            Err(_) => Some(format!("{name_of_thread}: a bug; see the panic on standard error")),
        };
        if let Some(why) = why {
            shared.failure().get_or_insert(why);
        }
        drop(tun);
        // Nobody waits any more if this fails.
        let _ = finished.send(());
    })?;
    Ok((thread, wait))
}

fn duplicate(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(libc::EBADF));
    }
    // SAFETY: the descriptor is the caller's and stays open through this call.
    unsafe { BorrowedFd::borrow_raw(fd) }.try_clone_to_owned()
}

fn tun_to_net(shared: &Shared, tun: &Tun) -> io::Result<()> {
    let mut buffer = vec![0; MAX_READ];
    let mut queue = SendQueue::new(true);
    let mut from_tun = FromTun::default();
    let mut reads = 0;
    while !shared.is_stopping.load(Relaxed) {
        match tun.read(&mut buffer) {
            Ok(len) => {
                take_tun_packet(shared, &mut from_tun, &mut buffer[..len], &mut queue);
                reads += 1;
                if reads == READS_PER_SEND {
                    send(shared, &mut queue, Queued::All);
                    reads = 0;
                } else if queue.is_full() {
                    send(shared, &mut queue, Queued::Closed);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                send(shared, &mut queue, Queued::All);
                reads = 0;
                wait([(tun.fd(), libc::POLLIN), (shared.stop.fd(), libc::POLLIN)], -1);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// What of a queue is to be sent.
enum Queued {
    All,
    /// All but the newest, if the next packet may still join it.
    Closed,
}

fn send(shared: &Shared, queue: &mut SendQueue, which: Queued) {
    let upto = match which {
        Queued::All => queue.len(),
        Queued::Closed => queue.closed(),
    };
    if upto == 0 {
        return;
    }
    let sockets = shared.sockets.load();
    sockets.send(&queue.seal(upto), &shared.counters);
    queue.discard(upto);
    queue.set_gso(sockets.has_gso());
}

fn take_tun_packet(shared: &Shared, from_tun: &mut FromTun, read: &mut [u8], queue: &mut SendQueue) {
    count(&shared.counters.tun_reads);
    let Some((header, packet)) = read.split_first_chunk_mut::<VNET_HEADER_LEN>() else { return };
    let header = VnetHeader::decode(header);
    if header.segment_size > 0 {
        count(&shared.counters.tun_super_packets);
    }
    from_tun.handle(&shared.engine, header, packet, monotonic(), queue);
}

/// What the thread from the network keeps.
struct NetState {
    arena: Vec<u8>,
    received: Vec<Receive>,
    receiver: Receiver,
    coalescer: Coalescer,
}

fn net_to_tun(shared: &Shared, tun: &Tun) -> io::Result<()> {
    let mut state = NetState {
        arena: vec![0; SLOT * MAX_RECEIVES],
        received: Vec::with_capacity(MAX_RECEIVES),
        receiver: Receiver::default(),
        coalescer: Coalescer::new(tun.offloads),
    };
    // Whether a socket may have something waiting; it is read until it has not.
    let mut ready = [true; 2];
    while !shared.is_stopping.load(Relaxed) {
        let sockets = shared.sockets.load_full();
        let both = [&sockets.v4, &sockets.v6];
        for (socket, is_ready) in both.into_iter().zip(&mut ready) {
            *is_ready &= socket.as_ref().is_some_and(|socket| receive(shared, tun, socket, &mut state));
        }
        if ready == [false; 2] {
            let [fd4, fd6] = both.map(|socket| socket.as_ref().map_or(-1, UdpSocket::fd));
            let told = wait([fd4, fd6, shared.stop.fd(), shared.rebound.fd()].map(|fd| (fd, libc::POLLIN)), -1);
            ready = [told[0] != 0, told[1] != 0];
            if told[3] != 0 {
                shared.rebound.clear();
                ready = [true; 2];
            }
        }
    }
    Ok(())
}

/// Takes what waits on a socket and returns whether there was anything.
fn receive(shared: &Shared, tun: &Tun, socket: &UdpSocket, state: &mut NetState) -> bool {
    let NetState { arena, received, receiver, coalescer } = state;
    if let Err(error) = socket.receive(arena, received, &shared.counters) {
        if error.kind() == io::ErrorKind::WouldBlock {
            return false;
        }
        // An ICMP error that an earlier send brought back; reading it has cleared it.
        count(&shared.counters.udp_receive_errors);
        return true;
    }
    coalescer.set_offloads(if shared.coalesces.load(Relaxed) { tun.offloads } else { NO_OFFLOADS });
    let now = monotonic();
    let mut unwritten = 0;
    for (index, one) in received.iter().enumerate().filter(|(_, one)| one.len > 0) {
        let start = index * SLOT;
        add(&shared.counters.udp_receives, 1);
        add(&shared.counters.udp_received_datagrams, one.len.div_ceil(one.stride.max(1)));
        add(&shared.counters.udp_received_bytes, one.len);
        let range = start..start + one.len;
        receiver.handle(&shared.engine, one.local, one.remote, one.ecn, arena, range, one.stride, now);
        unwritten += one.len;
        if unwritten >= WRITE_AFTER {
            receiver.drain_into(arena, coalescer);
            write_tun(shared, tun, coalescer, coalescer.closed(), arena);
            unwritten = 0;
        }
    }
    receiver.drain_into(arena, coalescer);
    write_tun(shared, tun, coalescer, coalescer.len(), arena);
    true
}

const NO_OFFLOADS: Offloads = Offloads { tcp: false, udp: false };

/// Writes the oldest `upto` super-packets.
fn write_tun(shared: &Shared, tun: &Tun, coalescer: &mut Coalescer, upto: usize, arena: &mut [u8]) {
    let mut slices: Vec<IoSlice<'_>> = Vec::with_capacity(64);
    for one in coalescer.finish(upto, arena) {
        slices.clear();
        slices.push(IoSlice::new(&one.vnet));
        slices.extend(one.slices.iter().map(|range| IoSlice::new(&arena[range.clone()])));
        count(&shared.counters.tun_writes);
        let is_super = one.slices.len() > 1;
        match tun.write_slices(&slices) {
            Ok(_) if is_super => count(&shared.counters.tun_writes_coalesced),
            Ok(_) => {}
            Err(error) if is_super && error.raw_os_error() == Some(libc::EINVAL) => {
                shared.coalesces.store(false, Relaxed);
                count(&shared.counters.tun_offload_fallbacks);
                write_pieces(shared, tun, one, arena);
            }
            Err(_) => count(&shared.counters.tun_write_errors),
        }
    }
    coalescer.discard(upto);
}

/// Writes the packets of a super-packet that the kernel refused.
fn write_pieces(shared: &Shared, tun: &Tun, one: &Super, arena: &[u8]) {
    let packet: Vec<u8> = one.slices.iter().flat_map(|range| &arena[range.clone()]).copied().collect();
    let Ok(headers) = Headers::parse(&packet) else { return };
    let Ok(split) = Split::new(&VnetHeader::decode(&one.vnet), &headers) else { return };
    for index in 0..split.segments {
        let mut piece = vec![0; split.len(index)];
        split.write(&packet, index, &mut piece);
        write_packet(shared, tun, &piece);
    }
}

fn write_packet(shared: &Shared, tun: &Tun, packet: &[u8]) -> bool {
    count(&shared.counters.tun_writes);
    let is_written = tun.write_packet(packet).is_ok();
    if !is_written {
        count(&shared.counters.tun_write_errors);
    }
    is_written
}

//! The relay's sockets and the thread that forwards channel data between them.
//!
//! One thread waits for all sockets at once and takes one batch from each that has something, so that no socket starves
//! another. It never calls Python; what Python has to see waits in a bounded ring.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use fastpath::counters::count;
use fastpath::relay::{AddError, Counters, Outbox, Send, Tables, Verdict};
use fastpath::strangers::{self, Strangers};
use fastpath::upcall::Signal;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::event::Event;

/// All clients share the listening port; there may be thousands of other ports.
const LISTEN_BUFFER: i32 = 16 << 20;
const ALLOCATION_BUFFER: i32 = 4 << 20;
const SEND_BUFFER: i32 = 2 << 20;
/// What one receive may give: a whole coalesced batch.
const SLOT: usize = 65_536;
const EVENTS: usize = 256;
/// No host may have more than this part of the waiting datagrams.
const SHARES: usize = 2;
const WAKE: u64 = u64::MAX;

/// What a relay offers and how it works.
pub struct Settings {
    pub listen_port: u16,
    /// Where ports are bound; a family without an address is not served.
    pub bind4: Option<Ipv4Addr>,
    pub bind6: Option<Ipv6Addr>,
    /// The addresses by which clients and peers reach us.
    pub public: Vec<IpAddr>,
    pub upcall_capacity: usize,
    /// Whether datagrams may share a system call, on the way out and in.
    pub gso: bool,
    pub gro: bool,
}

/// A datagram for Python.
pub struct Upcall {
    pub port: u16,
    pub source: SocketAddr,
    pub payload: Vec<u8>,
}

/// Datagrams that wait for Python, by turns: those of strangers, however many, do not keep those of others waiting.
#[derive(Default)]
struct Ring {
    lanes: [Lane; 2],
    turn: usize,
}

impl Ring {
    fn pop(&mut self) -> Option<Upcall> {
        self.turn ^= 1;
        self.lanes[self.turn].pop().or_else(|| self.lanes[self.turn ^ 1].pop())
    }

    fn len(&self) -> usize {
        self.lanes.iter().map(|lane| lane.waiting.len()).sum()
    }
}

/// Some that wait, and how many of them are of each host.
#[derive(Default)]
struct Lane {
    waiting: VecDeque<Upcall>,
    by_host: HashMap<IpAddr, usize>,
}

impl Lane {
    fn push(&mut self, upcall: Upcall) {
        *self.by_host.entry(upcall.source.ip()).or_default() += 1;
        self.waiting.push_back(upcall);
    }

    fn pop(&mut self) -> Option<Upcall> {
        let upcall = self.waiting.pop_front()?;
        let host = upcall.source.ip();
        if let Some(count) = self.by_host.get_mut(&host) {
            *count -= 1;
            if *count == 0 {
                self.by_host.remove(&host);
            }
        }
        Some(upcall)
    }
}

struct Socket {
    socket: UdpSocket,
    state: UdpSocketState,
}

/// A port in one family.
type Key = (u16, bool);

struct Shared {
    settings: Settings,
    tables: RwLock<Tables>,
    counters: Arc<Counters>,
    sockets: RwLock<HashMap<Key, Arc<Socket>>>,
    epoll: OwnedFd,
    upcalls: Mutex<Ring>,
    waiting: Event,
    wake: Event,
    stopping: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// A relay's forwarder.
pub struct Relay {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Relay {
    /// Opens the listening port.
    ///
    /// # Errors
    /// If it cannot be opened in one of the families, or the process is out of descriptors.
    pub fn open(settings: Settings) -> io::Result<Self> {
        let tables = Tables::new(settings.listen_port, settings.public.clone());
        let shared = Arc::new(Shared {
            counters: Arc::clone(&tables.counters),
            tables: RwLock::new(tables),
            sockets: RwLock::default(),
            epoll: new_epoll()?,
            upcalls: Mutex::default(),
            waiting: Event::new()?,
            wake: Event::new()?,
            stopping: AtomicBool::new(false),
            failure: Mutex::default(),
            settings,
        });
        watch(&shared.epoll, shared.wake.fd(), WAKE)?;
        let settings = &shared.settings;
        shared.open(settings.listen_port, settings.bind4.is_some(), settings.bind6.is_some())?;
        Ok(Self { shared, thread: Mutex::default() })
    }

    /// Starts the thread; a second call does nothing.
    ///
    /// # Errors
    /// If no thread can be made.
    pub fn start(&self) -> io::Result<()> {
        let mut thread = lock(&self.thread);
        if thread.is_none() {
            let shared = Arc::clone(&self.shared);
            *thread = Some(std::thread::Builder::new().name("relay".into()).spawn(move || shared.run())?);
        }
        Ok(())
    }

    /// Ends the thread and closes every port. Returns whether the thread ended in time.
    pub fn stop(&self, timeout: Duration) -> bool {
        self.shared.stopping.store(true, Relaxed);
        self.shared.wake.raise();
        let ended = lock(&self.thread).take().is_none_or(|thread| {
            let until = std::time::Instant::now() + timeout;
            while !thread.is_finished() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            thread.is_finished() && thread.join().is_ok()
        });
        write(&self.shared.sockets).clear();
        ended
    }

    /// From now on the plain requests of strangers are answered without Python. Our own addresses are added.
    pub fn answer_strangers(&self, mut settings: strangers::Settings) {
        let ours = &self.shared.settings;
        settings.own.extend([ours.bind4.map(IpAddr::V4), ours.bind6.map(IpAddr::V6)].into_iter().flatten());
        write(&self.shared.tables).answer_strangers(Strangers::new(settings));
    }

    /// Opens an allocation's port in each of these families, or in none.
    ///
    /// # Errors
    /// If one of them cannot be opened.
    pub fn open_allocation(&self, port: u16, ipv4: bool, ipv6: bool) -> io::Result<()> {
        self.shared.open(port, ipv4, ipv6)?;
        write(&self.shared.tables).add_port(port);
        Ok(())
    }

    /// Closes an allocation's port in these families; with the last one, its channels and permissions are forgotten.
    pub fn close_allocation(&self, port: u16, ipv4: bool, ipv6: bool) -> bool {
        if port == self.shared.settings.listen_port {
            return false;
        }
        let (closed, rest) = self.shared.close(port, ipv4, ipv6);
        if closed && !rest {
            write(&self.shared.tables).remove_port(port);
        }
        closed
    }

    /// # Errors
    /// See [`Tables::add_channel`].
    pub fn add_channel(&self, client: SocketAddr, number: u16, port: u16, peer: SocketAddr) -> Result<(), AddError> {
        write(&self.shared.tables).add_channel(client, number, port, peer)
    }

    pub fn remove_channel(&self, client: SocketAddr, number: u16) -> bool {
        write(&self.shared.tables).remove_channel(client, number)
    }

    /// # Errors
    /// See [`Tables::add_permission`].
    pub fn add_permission(&self, client: SocketAddr, port: u16, host: IpAddr) -> Result<(), AddError> {
        write(&self.shared.tables).add_permission(client, port, host)
    }

    pub fn remove_permission(&self, port: u16, host: IpAddr) -> bool {
        write(&self.shared.tables).remove_permission(port, host)
    }

    /// Sends from one of our ports what must not travel in fragments; returns whether the kernel took it.
    pub fn send_whole(&self, port: u16, remote: SocketAddr, payload: &[u8]) -> bool {
        let socket = read(&self.shared.sockets).get(&(port, remote.is_ipv6())).cloned();
        let sent = socket.is_some_and(|socket| {
            let fd = socket.socket.as_raw_fd();
            // What the forwarding thread sends meanwhile is held to this as well, if it is larger than the link.
            fragment(fd, remote.is_ipv6(), false).is_ok()
                && socket.socket.send_to(payload, remote).is_ok() & fragment(fd, remote.is_ipv6(), true).is_ok()
        });
        if !sent {
            count(&self.shared.counters.send_errors);
        }
        sent
    }

    /// Sends from one of our ports; returns whether the kernel took it.
    pub fn send(&self, port: u16, remote: SocketAddr, payload: &[u8]) -> bool {
        let socket = read(&self.shared.sockets).get(&(port, remote.is_ipv6())).cloned();
        let sent = socket.is_some_and(|socket| socket.socket.send_to(payload, remote).is_ok());
        if !sent {
            count(&self.shared.counters.send_errors);
        }
        sent
    }

    /// Takes out at most `limit` waiting datagrams.
    pub fn poll_upcalls(&self, limit: usize) -> Vec<Upcall> {
        let mut ring = lock(&self.shared.upcalls);
        let taken = std::iter::from_fn(|| ring.pop()).take(limit).collect();
        if ring.len() == 0 {
            self.shared.waiting.clear();
        }
        taken
    }

    /// Readable while datagrams wait, and when the thread ended by itself.
    #[must_use]
    pub fn upcall_fd(&self) -> RawFd {
        self.shared.waiting.fd()
    }

    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.shared.counters.each().collect()
    }

    /// Calls `visit` with at most `limit` channels.
    pub fn each_channel(&self, limit: usize, visit: impl FnMut(&fastpath::relay::Channel)) {
        read(&self.shared.tables).channels().take(limit).for_each(visit);
    }

    /// Why the thread ended by itself, if it did.
    #[must_use]
    pub fn failure(&self) -> Option<String> {
        lock(&self.shared.failure).clone()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.stop(Duration::from_secs(1));
    }
}

impl Shared {
    fn open(&self, port: u16, ipv4: bool, ipv6: bool) -> io::Result<()> {
        let settings = &self.settings;
        let mut opened = Vec::new();
        let buffer = if port == settings.listen_port { LISTEN_BUFFER } else { ALLOCATION_BUFFER };
        for (wanted, ip) in [(ipv4, settings.bind4.map(IpAddr::V4)), (ipv6, settings.bind6.map(IpAddr::V6))] {
            if wanted {
                let ip = ip.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
                opened.push(((port, ip.is_ipv6()), bind(SocketAddr::new(ip, port), buffer, settings.gro)?));
            }
        }
        let mut sockets = write(&self.sockets);
        if opened.iter().any(|(key, _)| sockets.contains_key(key)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        for (key, socket) in &opened {
            watch(&self.epoll, socket.socket.as_raw_fd(), token(*key))?;
        }
        sockets.extend(opened.into_iter().map(|(key, socket)| (key, Arc::new(socket))));
        Ok(())
    }

    /// Closing a descriptor takes it out of the epoll set; the thread may hold it for the rest of its batch.
    /// Returns whether something was closed, and whether the port is still open in the other family.
    fn close(&self, port: u16, ipv4: bool, ipv6: bool) -> (bool, bool) {
        let mut sockets = write(&self.sockets);
        let four = ipv4 && sockets.remove(&(port, false)).is_some();
        let six = ipv6 && sockets.remove(&(port, true)).is_some();
        (four || six, sockets.contains_key(&(port, false)) || sockets.contains_key(&(port, true)))
    }

    fn run(&self) {
        let guard = Guard(self);
        let mut memory = vec![0; BATCH_SIZE * SLOT];
        let mut outbox = Outbox::new(self.settings.gso);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        while !self.stopping.load(Relaxed) {
            let Ok(ready) = wait(&self.epoll, &mut events) else {
                return; // the guard says so
            };
            for event in &events[..ready] {
                let token = event.u64;
                if token == WAKE {
                    self.wake.clear();
                    continue;
                }
                let key = key(token);
                let socket = read(&self.sockets).get(&key).cloned();
                if let Some(socket) = socket {
                    outbox.clear();
                    self.receive(key.0, &socket, &mut memory, &mut outbox);
                    self.send_all(&outbox);
                }
            }
        }
        drop(guard);
    }

    /// Takes one batch from a socket.
    fn receive(&self, port: u16, socket: &Socket, memory: &mut [u8], outbox: &mut Outbox) {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let mut slots = memory.chunks_exact_mut(SLOT).map(IoSliceMut::new).collect::<Vec<_>>();
        let Ok(received) = socket.state.recv(UdpSockRef::from(&socket.socket), &mut slots, &mut metas) else {
            return; // nothing there any more, or an ICMP error of an earlier send
        };
        count(&self.counters.receive_calls);
        let tables = read(&self.tables);
        tables.tick(monotonic_ms());
        for (slot, meta) in slots.iter().zip(&metas).take(received) {
            let batch = &slot[..meta.len.min(slot.len())];
            let mut rest = batch;
            loop {
                let (datagram, next) = rest.split_at(rest.len().min(meta.stride.max(1)));
                self.datagram(&tables, port, meta.addr, datagram, outbox);
                if next.is_empty() {
                    break;
                }
                rest = next;
            }
        }
    }

    fn datagram(&self, tables: &Tables, port: u16, source: SocketAddr, datagram: &[u8], outbox: &mut Outbox) {
        if port != self.settings.listen_port {
            tables.peer_datagram(port, source, datagram, outbox);
        } else {
            match tables.client_datagram(source, datagram, outbox) {
                Verdict::Done => {}
                verdict => self.raise(Upcall { port, source, payload: datagram.to_vec() }, verdict == Verdict::Proven),
            }
        }
    }

    fn raise(&self, upcall: Upcall, is_proven: bool) {
        let mut ring = lock(&self.upcalls);
        let capacity = self.settings.upcall_capacity;
        let lane = &mut ring.lanes[usize::from(is_proven)];
        if lane.waiting.len() >= capacity {
            return count(&self.counters.upcalls_dropped_full);
        }
        if lane.by_host.get(&upcall.source.ip()).is_some_and(|waiting| waiting * SHARES >= capacity) {
            return count(&self.counters.upcalls_dropped_share);
        }
        count(&self.counters.upcalls);
        lane.push(upcall);
        if ring.len() == 1 {
            self.waiting.raise();
        }
    }

    fn send_all(&self, outbox: &Outbox) {
        let sockets = read(&self.sockets);
        for send in outbox.sends() {
            match sockets.get(&(send.port, send.remote.is_ipv6())) {
                Some(socket) => self.send_one(socket, &send),
                None => count(&self.counters.send_errors),
            }
        }
    }

    fn send_one(&self, socket: &Socket, send: &Send<'_>) {
        let is_joined = send.segment < send.contents.len();
        let taken = if is_joined && socket.state.max_gso_segments() == 1 {
            false
        } else {
            match self.try_send(socket, send.remote, send.contents, is_joined.then_some(send.segment)) {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock || !is_joined,
            }
        };
        if !taken {
            // The kernel, the link or the device has no segmentation: one by one.
            for datagram in send.contents.chunks(send.segment) {
                let _counted = self.try_send(socket, send.remote, datagram, None);
            }
        }
    }

    fn try_send(
        &self,
        socket: &Socket,
        destination: SocketAddr,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit { destination, ecn: None, contents, segment_size, src_ip: None };
        count(&self.counters.send_calls);
        let result = socket.state.try_send(UdpSockRef::from(&socket.socket), &transmit);
        if let Err(error) = &result {
            count(match error.kind() {
                io::ErrorKind::WouldBlock => &self.counters.send_would_block,
                _ => &self.counters.send_errors,
            });
        }
        result
    }
}

/// Tells Python if the thread ends without being asked to, even by a panic.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.0.stopping.load(Relaxed) {
            *lock(&self.0.failure) = Some("the forwarding thread ended by itself".into());
            self.0.waiting.raise();
        }
    }
}

fn token((port, is_ipv6): Key) -> u64 {
    u64::from(port) << 1 | u64::from(is_ipv6)
}

fn key(token: u64) -> Key {
    (u16::try_from(token >> 1 & 0xffff).unwrap_or_default(), token & 1 == 1)
}

fn bind(address: SocketAddr, receive_buffer: i32, gro: bool) -> io::Result<Socket> {
    let raw = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        raw.set_only_v6(true)?;
    }
    raw.bind(&address.into())?;
    let state = UdpSocketState::new(UdpSockRef::from(&raw))?;
    let fd = raw.as_raw_fd();
    // Fragments are better than nothing: datagrams of clients need not fit our link.
    fragment(fd, address.is_ipv6(), true)?;
    if !gro {
        set_option(fd, libc::SOL_UDP, libc::UDP_GRO, 0)?;
    }
    // More than the system's limit needs a capability; less is no reason not to serve.
    for (forced, plain, size) in
        [(libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, receive_buffer), (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, SEND_BUFFER)]
    {
        let _ =
            set_option(fd, libc::SOL_SOCKET, forced, size).or_else(|_| set_option(fd, libc::SOL_SOCKET, plain, size));
    }
    Ok(Socket { socket: raw.into(), state })
}

/// Milliseconds of the clock of Python's `time.monotonic`, with which nonces are made.
fn monotonic_ms() -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes into the local value; the clock is always there.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
    u64::try_from(time.tv_sec).unwrap_or_default() * 1000 + u64::try_from(time.tv_nsec / 1_000_000).unwrap_or_default()
}

/// Whether datagrams that do not fit the link are cut up, or refused.
fn fragment(fd: RawFd, is_ipv6: bool, may: bool) -> io::Result<()> {
    if is_ipv6 {
        let mode = if may { libc::IPV6_PMTUDISC_WANT } else { libc::IPV6_PMTUDISC_DO };
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER, mode)?;
        set_option(fd, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, i32::from(!may))
    } else {
        let mode = if may { libc::IP_PMTUDISC_WANT } else { libc::IP_PMTUDISC_DO };
        set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, mode)
    }
}

fn set_option(fd: RawFd, level: i32, name: i32, value: i32) -> io::Result<()> {
    let size = libc::socklen_t::try_from(size_of::<i32>()).expect("an int is small");
    // SAFETY: reads `size` bytes of a local integer.
    checked(unsafe { libc::setsockopt(fd, level, name, (&raw const value).cast(), size) }).map(drop)
}

fn new_epoll() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers; the descriptor is checked before it is owned.
    let fd = checked(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn watch(epoll: &OwnedFd, fd: RawFd, token: u64) -> io::Result<()> {
    let mut event = libc::epoll_event { events: libc::EPOLLIN as u32, u64: token };
    // SAFETY: the kernel copies the local event.
    checked(unsafe { libc::epoll_ctl(epoll.as_raw_fd(), libc::EPOLL_CTL_ADD, fd, &raw mut event) }).map(drop)
}

fn wait(epoll: &OwnedFd, events: &mut [libc::epoll_event]) -> io::Result<usize> {
    let room = i32::try_from(events.len()).unwrap_or(i32::MAX);
    loop {
        // SAFETY: the kernel writes at most `room` events into the slice.
        let ready = checked(unsafe { libc::epoll_wait(epoll.as_raw_fd(), events.as_mut_ptr(), room, -1) });
        match ready {
            Ok(ready) => return Ok(usize::try_from(ready).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

fn checked(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

// A thread that panicked leaves whole tables behind, since every change of them is one call.

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn read<T>(lock: &RwLock<T>) -> RwLockReadGuard<'_, T> {
    lock.read().unwrap_or_else(PoisonError::into_inner)
}

fn write<T>(lock: &RwLock<T>) -> RwLockWriteGuard<'_, T> {
    lock.write().unwrap_or_else(PoisonError::into_inner)
}

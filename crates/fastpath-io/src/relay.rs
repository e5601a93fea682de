//! The relay's sockets and the threads that forward channel data between them.
//!
//! Each thread has a socket of its own at the listening port, among which the kernel shares out the clients, and its part
//! of the allocations' ports. It waits for all of them at once and takes one batch from each that has something, so that
//! no socket starves another. It never calls Python; what Python has to see waits in a bounded ring. Where the kernel
//! forwards channels itself, they come here only as far as it does not, and its tables follow ours.

use std::collections::{HashMap, VecDeque};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::thread::JoinHandle;
use std::time::Duration;

use fastpath::counters::count;
use fastpath::relay::{AddError, Channel, Counters, Outbox, Send, Tables, Verdict};
use fastpath::strangers::{self, Strangers};
use fastpath::upcall::Signal;
use quinn_udp::{BATCH_SIZE, RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use socket2::{Domain, Protocol, Socket as RawSocket, Type};

use crate::event::Event;
use crate::relay_offload::{self, Place, RelayOffload};

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
    /// How many threads forward.
    pub threads: usize,
    /// Whether datagrams may share a system call, on the way out and in.
    pub gso: bool,
    pub gro: bool,
    /// Whether, and where, the kernel is to forward known channels.
    pub offload: Option<relay_offload::Settings>,
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

/// What one thread waits for.
struct Shard {
    epoll: OwnedFd,
    wake: Event,
    /// Its sockets at the listening port.
    listening: RwLock<HashMap<Key, Arc<Socket>>>,
}

struct Shared {
    settings: Settings,
    tables: RwLock<Tables>,
    counters: Arc<Counters>,
    /// Those of allocations.
    sockets: RwLock<HashMap<Key, Arc<Socket>>>,
    shards: Vec<Shard>,
    upcalls: Mutex<Ring>,
    waiting: Event,
    stopping: AtomicBool,
    failure: Mutex<Option<String>>,
}

/// A relay's forwarder.
pub struct Relay {
    shared: Arc<Shared>,
    /// Held while tables change, so that the kernel's change in the same order.
    offload: Mutex<Option<RelayOffload>>,
    offload_error: Option<String>,
    threads: Mutex<Vec<JoinHandle<()>>>,
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
            shards: listen(&settings)?,
            upcalls: Mutex::default(),
            waiting: Event::new()?,
            stopping: AtomicBool::new(false),
            failure: Mutex::default(),
            settings,
        });
        let settings = &shared.settings;
        let (offload, offload_error) = match settings.offload.as_ref().map(|offload| attach(offload, settings)) {
            Some(Ok(offload)) => (Some(offload), None),
            Some(Err(reason)) => (None, Some(reason)),
            None => (None, None),
        };
        Ok(Self { shared, offload: Mutex::new(offload), offload_error, threads: Mutex::default() })
    }

    /// Starts the threads; a second call does nothing.
    ///
    /// # Errors
    /// If a thread cannot be made.
    pub fn start(&self) -> io::Result<()> {
        let mut threads = lock(&self.threads);
        for index in threads.len()..self.shared.shards.len() {
            let shared = Arc::clone(&self.shared);
            let name = format!("relay-{index}");
            threads.push(std::thread::Builder::new().name(name).spawn(move || shared.run(index))?);
        }
        Ok(())
    }

    /// Ends the threads, closes every port and takes the program out of the kernel. Returns whether all ended in time.
    pub fn stop(&self, timeout: Duration) -> bool {
        *lock(&self.offload) = None;
        self.shared.stopping.store(true, Relaxed);
        self.shared.shards.iter().for_each(|shard| shard.wake.raise());
        let until = std::time::Instant::now() + timeout;
        let mut ended = true;
        for thread in lock(&self.threads).drain(..) {
            while !thread.is_finished() && std::time::Instant::now() < until {
                std::thread::sleep(Duration::from_millis(1));
            }
            ended &= thread.is_finished() && thread.join().is_ok();
        }
        write(&self.shared.sockets).clear();
        self.shared.shards.iter().for_each(|shard| write(&shard.listening).clear());
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
        let mut offload = lock(&self.offload);
        if let Some(offload) = offload.as_mut() {
            let tables = read(&self.shared.tables);
            let gone = |one: &&Channel| one.port == port && if one.peer.is_ipv6() { ipv6 } else { ipv4 };
            tables.channels().filter(gone).for_each(|one| offload.remove(one));
        }
        let (closed, rest) = self.shared.close(port, ipv4, ipv6);
        if closed && !rest {
            write(&self.shared.tables).remove_port(port);
        }
        closed
    }

    /// Adds a channel here and in the kernel; for one that is known already, makes sure that the kernel knows it too.
    ///
    /// # Errors
    /// See [`Tables::add_channel`].
    pub fn add_channel(&self, client: SocketAddr, number: u16, port: u16, peer: SocketAddr) -> Result<(), AddError> {
        let mut offload = lock(&self.offload);
        write(&self.shared.tables).add_channel(client, number, port, peer)?;
        if let (Some(offload), Some(channel)) = (offload.as_mut(), read(&self.shared.tables).channel(client, number)) {
            offload.add(channel);
        }
        Ok(())
    }

    pub fn remove_channel(&self, client: SocketAddr, number: u16) -> bool {
        let mut offload = lock(&self.offload);
        if let (Some(offload), Some(channel)) = (offload.as_mut(), read(&self.shared.tables).channel(client, number)) {
            offload.remove(channel);
        }
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
        let socket = self.shared.socket((port, remote.is_ipv6()), 0);
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
        let socket = self.shared.socket((port, remote.is_ipv6()), 0);
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

    /// What was counted here and, if it forwards, in the kernel.
    #[must_use]
    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        let offload = lock(&self.offload);
        let kernel = offload.as_ref().map(RelayOffload::counters).unwrap_or_default();
        self.shared.counters.each().chain(kernel).collect()
    }

    /// Whether the kernel forwards known channels.
    #[must_use]
    pub fn is_offloaded(&self) -> bool {
        lock(&self.offload).is_some()
    }

    /// Why it does not, if it was to.
    #[must_use]
    pub fn offload_error(&self) -> Option<&str> {
        self.offload_error.as_deref()
    }

    /// Calls `visit` with at most `limit` channels and what each carried, here and in the kernel: packets and bytes to
    /// its peer and to its client.
    pub fn each_channel(&self, limit: usize, mut visit: impl FnMut(&Channel, [(u64, u64); 2])) {
        let offload = lock(&self.offload);
        for channel in read(&self.shared.tables).channels().take(limit) {
            let mut traffic = [channel.to_peer.get(), channel.to_client.get()];
            if let Some(offload) = offload.as_ref() {
                for (sum, (packets, bytes)) in traffic.iter_mut().zip(offload.traffic(channel)) {
                    *sum = (sum.0 + packets, sum.1 + bytes);
                }
            }
            visit(channel, traffic);
        }
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
        for (wanted, ip) in [(ipv4, settings.bind4.map(IpAddr::V4)), (ipv6, settings.bind6.map(IpAddr::V6))] {
            if wanted {
                let ip = ip.ok_or_else(|| io::Error::from(io::ErrorKind::AddrNotAvailable))?;
                let socket = bind(SocketAddr::new(ip, port), ALLOCATION_BUFFER, settings.gro, false)?;
                opened.push(((port, ip.is_ipv6()), socket));
            }
        }
        let mut sockets = write(&self.sockets);
        if opened.iter().any(|(key, _)| sockets.contains_key(key)) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        let shard = &self.shards[usize::from(port) % self.shards.len()];
        for (key, socket) in &opened {
            watch(&shard.epoll, socket.socket.as_raw_fd(), token(*key))?;
        }
        sockets.extend(opened.into_iter().map(|(key, socket)| (key, Arc::new(socket))));
        Ok(())
    }

    /// The socket by which a thread receives and sends at that port.
    fn socket(&self, key: Key, shard: usize) -> Option<Arc<Socket>> {
        if key.0 == self.settings.listen_port {
            return read(&self.shards[shard].listening).get(&key).cloned();
        }
        read(&self.sockets).get(&key).cloned()
    }

    /// Closing a descriptor takes it out of the epoll set; the thread may hold it for the rest of its batch.
    /// Returns whether something was closed, and whether the port is still open in the other family.
    fn close(&self, port: u16, ipv4: bool, ipv6: bool) -> (bool, bool) {
        let mut sockets = write(&self.sockets);
        let four = ipv4 && sockets.remove(&(port, false)).is_some();
        let six = ipv6 && sockets.remove(&(port, true)).is_some();
        (four || six, sockets.contains_key(&(port, false)) || sockets.contains_key(&(port, true)))
    }

    fn run(&self, index: usize) {
        let guard = Guard(self);
        let shard = &self.shards[index];
        let mut memory = vec![0; BATCH_SIZE * SLOT];
        let mut outbox = Outbox::new(self.settings.gso);
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EVENTS];
        while !self.stopping.load(Relaxed) {
            let Ok(ready) = wait(&shard.epoll, &mut events) else {
                return; // the guard says so
            };
            for event in &events[..ready] {
                let token = event.u64;
                if token == WAKE {
                    shard.wake.clear();
                    continue;
                }
                let key = key(token);
                if let Some(socket) = self.socket(key, index) {
                    outbox.clear();
                    self.receive(key.0, &socket, &mut memory, &mut outbox);
                    self.send_all(&outbox, shard);
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

    fn send_all(&self, outbox: &Outbox, shard: &Shard) {
        let (sockets, listening) = (read(&self.sockets), read(&shard.listening));
        for send in outbox.sends() {
            let key = (send.port, send.remote.is_ipv6());
            let held = if send.port == self.settings.listen_port { &listening } else { &sockets };
            match held.get(&key) {
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

fn attach(offload: &relay_offload::Settings, settings: &Settings) -> Result<RelayOffload, String> {
    let &Settings { listen_port, bind4, bind6, .. } = settings;
    RelayOffload::attach(offload, &Place { listen_port, bind4, bind6, public: &settings.public })
}

/// Tells Python if the thread ends without being asked to, even by a panic.
struct Guard<'a>(&'a Shared);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        if !self.0.stopping.load(Relaxed) {
            *lock(&self.0.failure) = Some("a forwarding thread ended by itself".into());
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

/// Opens the listening port once for each thread, in each family that is served.
fn listen(settings: &Settings) -> io::Result<Vec<Shard>> {
    let hosts = [settings.bind4.map(IpAddr::V4), settings.bind6.map(IpAddr::V6)];
    let places: Vec<_> = hosts.into_iter().flatten().map(|host| SocketAddr::new(host, settings.listen_port)).collect();
    let is_shared = settings.threads > 1;
    if is_shared {
        // A port that is shared could be shared with another program, too: nobody may have it.
        for place in &places {
            bind(*place, LISTEN_BUFFER, false, false)?;
        }
    }
    let mut shards = Vec::new();
    for _ in 0..settings.threads.max(1) {
        let shard = Shard { epoll: new_epoll()?, wake: Event::new()?, listening: RwLock::default() };
        watch(&shard.epoll, shard.wake.fd(), WAKE)?;
        for place in &places {
            let key = (settings.listen_port, place.is_ipv6());
            let socket = bind(*place, LISTEN_BUFFER, settings.gro, is_shared)?;
            watch(&shard.epoll, socket.socket.as_raw_fd(), token(key))?;
            write(&shard.listening).insert(key, Arc::new(socket));
        }
        shards.push(shard);
    }
    Ok(shards)
}

fn bind(address: SocketAddr, receive_buffer: i32, gro: bool, is_shared: bool) -> io::Result<Socket> {
    let raw = RawSocket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        raw.set_only_v6(true)?;
    }
    if is_shared {
        set_option(raw.as_raw_fd(), libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
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

//! A UDP socket of Linux: many datagrams a call, cut and joined by the kernel where it can (GSO, GRO).

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

use fastpath::counters::{add, count};
use fastpath::send_queue::{Sealed, Send};

use crate::control::Control;
use crate::io_counters::IoCounters;
use crate::socket_address::RawAddress;
use crate::{checked, wait};

/// The most sends of one system call.
const MAX_SENDS: usize = 64;
/// The most receives of one system call.
pub const MAX_RECEIVES: usize = 16;
/// Room for one receive: as many datagrams as the kernel joins.
pub const SLOT: usize = 65536;
/// How long a full send buffer is waited for before its datagram is lost.
const SEND_WAIT_MS: i32 = 100;
/// After so many refused GSO sends in a row no more are tried.
const GSO_REFUSALS: u32 = 8;

pub struct UdpSocket {
    fd: OwnedFd,
    is_v6: bool,
    local: SocketAddr,
    has_gso: AtomicBool,
    gso_refusals: AtomicU32,
}

/// One receive: `len` bytes in its slot, datagrams of `stride` bytes each.
#[derive(Debug, Clone, Copy)]
pub struct Receive {
    pub local: SocketAddr,
    pub remote: SocketAddr,
    pub ecn: u8,
    pub len: usize,
    pub stride: usize,
}

impl UdpSocket {
    /// Takes a bound socket and asks it for what the threads need to know of each datagram.
    ///
    /// # Errors
    /// If it is not a bound UDP socket of IPv4 or IPv6.
    pub fn new(fd: OwnedFd, gso: bool, gro: bool) -> io::Result<Self> {
        let local = local_address(&fd)?;
        let is_v6 = local.is_ipv6();
        let on = |level, name| set_option(&fd, level, name, 1);
        if is_v6 {
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO)?;
            on(libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)?;
        } else {
            on(libc::IPPROTO_IP, libc::IP_PKTINFO)?;
            on(libc::IPPROTO_IP, libc::IP_RECVTOS)?;
        }
        // A kernel without GRO refuses, and single datagrams are fine too.
        let _ = set_option(&fd, libc::SOL_UDP, libc::UDP_GRO, libc::c_int::from(gro));
        set_non_blocking(&fd)?;
        let has_gso = AtomicBool::new(gso && set_option(&fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok());
        Ok(Self { fd, is_v6, local, has_gso, gso_refusals: AtomicU32::new(0) })
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }

    #[must_use]
    pub fn has_gso(&self) -> bool {
        self.has_gso.load(Relaxed)
    }

    /// Receives what waits, at most one datagram run a slot; `slots` is room for [`MAX_RECEIVES`] slots.
    ///
    /// # Errors
    /// `WouldBlock` if nothing waits; else an error that an earlier send brought back.
    pub fn receive(&self, slots: &mut [u8], received: &mut Vec<Receive>, counters: &IoCounters) -> io::Result<()> {
        received.clear();
        let mut addresses = [RawAddress::EMPTY; MAX_RECEIVES];
        let mut controls = [Control::EMPTY; MAX_RECEIVES];
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_RECEIVES];
        let mut headers = [EMPTY_HEADER; MAX_RECEIVES];
        let count_slots = (slots.len() / SLOT).min(MAX_RECEIVES);
        for (index, slot) in slots.chunks_exact_mut(SLOT).take(count_slots).enumerate() {
            vectors[index] = libc::iovec { iov_base: slot.as_mut_ptr().cast(), iov_len: SLOT };
            let header = &mut headers[index].msg_hdr;
            header.msg_name = addresses[index].as_mut_ptr();
            header.msg_namelen = RawAddress::LEN;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            header.msg_control = controls[index].as_mut_ptr();
            header.msg_controllen = Control::CAPACITY as _;
        }
        add(&counters.udp_receive_calls, 1);
        // SAFETY: all headers up to count_slots point to live, separate buffers of the lengths given.
        let taken = checked(unsafe {
            libc::recvmmsg(
                self.fd(),
                headers.as_mut_ptr(),
                count_slots as _,
                libc::MSG_DONTWAIT as _,
                std::ptr::null_mut(),
            )
        })?;
        for index in 0..taken as usize {
            let header = &headers[index];
            let told = controls[index].parse(header.msg_hdr.msg_controllen as _);
            let len = header.msg_len as usize;
            let remote = addresses[index].decode();
            if header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0 || remote.is_none() {
                count(&counters.udp_truncated);
            }
            // A slot that is of no use keeps its place, so that places and slots agree.
            let usable = header.msg_hdr.msg_flags & libc::MSG_TRUNC == 0;
            received.push(Receive {
                local: SocketAddr::new(told.local.unwrap_or(self.local.ip()), self.local.port()),
                remote: remote.unwrap_or(SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0)),
                ecn: told.ecn,
                len: if usable && remote.is_some() { len } else { 0 },
                stride: told.segment.filter(|segment| *segment > 0).unwrap_or(len),
            });
        }
        Ok(())
    }

    /// Sends the sends of `queue` that are of this socket's family; errors are counted and cost their own
    /// datagrams only.
    ///
    /// Returns how many datagrams the kernel took.
    pub fn send(&self, queue: &Sealed<'_>, counters: &IoCounters) -> usize {
        let mut batch: Vec<&Send> = Vec::new();
        let mut sent = 0;
        for send in queue.sends().iter().filter(|send| send.to.remote.is_ipv6() == self.is_v6) {
            batch.push(send);
            if batch.len() == MAX_SENDS {
                sent += self.send_batch(queue, &batch, counters);
                batch.clear();
            }
        }
        sent + self.send_batch(queue, &batch, counters)
    }

    fn send_batch(&self, queue: &Sealed<'_>, mut batch: &[&Send], counters: &IoCounters) -> usize {
        let mut sent = 0;
        while let Some(first) = batch.first() {
            let needs_pieces = first.segments > 1 && !self.has_gso();
            let outcome = if needs_pieces { Ok(0) } else { self.send_many(queue, batch, counters) };
            match outcome {
                Ok(taken) if taken > 0 => {
                    self.gso_refusals.store(0, Relaxed);
                    let (done, rest) = batch.split_at(taken);
                    for send in done {
                        note_sent(counters, send.segments, queue.payload(send).len());
                        sent += send.segments;
                    }
                    batch = rest;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if is_refused_gso(&error) && first.segments > 1 => {
                    count(&counters.udp_gso_fallbacks);
                    let refusals = self.gso_refusals.fetch_add(1, Relaxed) + 1;
                    if error.raw_os_error() == Some(libc::EIO) || refusals >= GSO_REFUSALS {
                        self.has_gso.store(false, Relaxed);
                    }
                    sent += self.send_pieces(queue, first, counters);
                }
                Ok(_) => sent += self.send_pieces(queue, first, counters),
                Err(_) => add(&counters.udp_send_errors, first.segments),
            }
            batch = &batch[1..];
        }
        sent
    }

    /// One system call for as many sends as it takes.
    fn send_many(&self, queue: &Sealed<'_>, batch: &[&Send], counters: &IoCounters) -> io::Result<usize> {
        let mut calls = Calls::new();
        let gso = self.has_gso();
        // Without GSO a send of several datagrams must not slip in among the others.
        let fitting = batch.iter().take(MAX_SENDS).take_while(|send| gso || send.segments == 1);
        for send in fitting {
            let segment = (send.segments > 1).then_some(send.segment);
            let control = Control::for_send(self.is_v6, send.to.local.map(|a| a.ip()), send.to.ecn, segment);
            calls.push(send.to.remote, queue.payload(send), control);
        }
        self.transmit(&mut calls, counters)
    }

    fn send_pieces(&self, queue: &Sealed<'_>, send: &Send, counters: &IoCounters) -> usize {
        let mut sent = 0;
        for datagram in queue.datagrams(send) {
            let mut calls = Calls::new();
            let local = send.to.local.map(|address| address.ip());
            calls.push(send.to.remote, datagram, Control::for_send(self.is_v6, local, send.to.ecn, None));
            match self.transmit(&mut calls, counters) {
                Ok(_) => {
                    note_sent(counters, 1, datagram.len());
                    sent += 1;
                }
                Err(_) => count(&counters.udp_send_errors),
            }
        }
        sent
    }

    /// Waits for room in the send buffer, which holds the TUN device back instead of losing its packets.
    fn transmit(&self, calls: &mut Calls, counters: &IoCounters) -> io::Result<usize> {
        for _ in 0..2 {
            add(&counters.udp_send_calls, 1);
            match calls.send(self.fd()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    count(&counters.udp_send_waits);
                    wait([(self.fd(), libc::POLLOUT)], SEND_WAIT_MS);
                }
                outcome => return outcome,
            }
        }
        Err(io::ErrorKind::WouldBlock.into())
    }
}

fn note_sent(counters: &IoCounters, datagrams: usize, bytes: usize) {
    add(&counters.udp_sends, 1);
    add(&counters.udp_sent_datagrams, datagrams);
    add(&counters.udp_sent_bytes, bytes);
}

fn is_refused_gso(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE | libc::EOPNOTSUPP))
}

const EMPTY_HEADER: libc::mmsghdr =
    // SAFETY: mmsghdr is plain old data; zero means no buffers.
    unsafe { std::mem::zeroed() };

/// The arguments of one `sendmmsg`; the payloads outlive it.
struct Calls<'a> {
    addresses: Vec<(RawAddress, libc::socklen_t)>,
    controls: Vec<Control>,
    payloads: Vec<&'a [u8]>,
}

impl<'a> Calls<'a> {
    fn new() -> Self {
        Self { addresses: Vec::new(), controls: Vec::new(), payloads: Vec::new() }
    }

    fn push(&mut self, remote: SocketAddr, payload: &'a [u8], control: Control) {
        self.addresses.push(RawAddress::encode(remote));
        self.controls.push(control);
        self.payloads.push(payload);
    }

    fn send(&mut self, fd: RawFd) -> io::Result<usize> {
        let mut vectors = [libc::iovec { iov_base: std::ptr::null_mut(), iov_len: 0 }; MAX_SENDS];
        let mut headers = [EMPTY_HEADER; MAX_SENDS];
        for (index, payload) in self.payloads.iter().enumerate() {
            // The kernel only reads through these pointers, whatever their type says.
            vectors[index] = libc::iovec { iov_base: payload.as_ptr().cast_mut().cast(), iov_len: payload.len() };
            let header = &mut headers[index].msg_hdr;
            let (address, len) = &mut self.addresses[index];
            header.msg_name = address.as_mut_ptr();
            header.msg_namelen = *len;
            header.msg_iov = &mut vectors[index];
            header.msg_iovlen = 1;
            if self.controls[index].len() > 0 {
                header.msg_controllen = self.controls[index].len() as _;
                header.msg_control = self.controls[index].as_mut_ptr();
            }
        }
        let len = self.payloads.len();
        // SAFETY: the first `len` headers point to live buffers of the lengths given.
        let sent = checked(unsafe { libc::sendmmsg(fd, headers.as_mut_ptr(), len as _, libc::MSG_DONTWAIT as _) })?;
        Ok(sent as usize)
    }
}

fn set_option(fd: &OwnedFd, level: libc::c_int, name: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: reads one int from a local.
    checked(unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, (&raw const value).cast(), len) }).map(drop)
}

fn set_non_blocking(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: takes no pointers.
    let flags = checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    // SAFETY: takes no pointers.
    checked(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags | libc::O_NONBLOCK) }).map(drop)
}

fn local_address(fd: &OwnedFd) -> io::Result<SocketAddr> {
    let mut raw = RawAddress::EMPTY;
    let mut len = RawAddress::LEN;
    // SAFETY: writes at most `len` bytes into a local buffer of that length.
    checked(unsafe { libc::getsockname(fd.as_raw_fd(), raw.as_mut_ptr().cast(), &mut len) })?;
    let unusable = || io::Error::new(io::ErrorKind::InvalidInput, "not a bound UDP socket of IPv4 or IPv6");
    raw.decode().filter(|address| address.port() != 0).ok_or_else(unusable)
}

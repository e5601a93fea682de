//! A TUN device of Linux, with offloads where the kernel has them.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;

use fastpath::coalesce::Offloads;
use fastpath::virtio::{VNET_HEADER_LEN, VnetHeader};

use crate::checked;

/// The longest read: a header and the longest IPv6 packet.
pub const MAX_READ: usize = VNET_HEADER_LEN + 40 + 65535;

const TCP: libc::c_uint = libc::TUN_F_CSUM | libc::TUN_F_TSO4 | libc::TUN_F_TSO6;
const UDP: libc::c_uint = libc::TUN_F_USO4 | libc::TUN_F_USO6;

pub struct Tun {
    file: File,
    pub name: String,
    pub index: u32,
    pub offloads: Offloads,
}

impl Tun {
    /// Makes or attaches to the interface `name` and sets its MTU.
    ///
    /// # Errors
    /// If the kernel refuses, most often for lack of CAP_NET_ADMIN.
    pub fn open(name: &str, mtu: u16, offload: bool) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open("/dev/net/tun")?;
        let mut request = interface_request(name)?;
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
        // SAFETY: the request is a whole ifreq that lives through the call.
        checked(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &mut request) })?;
        let offloads = set_offloads(&file, offload);
        // SAFETY: the kernel left a name that ends in zero within the array.
        let name = unsafe { std::ffi::CStr::from_ptr(request.ifr_name.as_ptr()) }.to_string_lossy().into_owned();
        set_mtu(&name, mtu)?;
        let c_name = CString::new(name.as_str())?;
        // SAFETY: a valid C string.
        let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
        Ok(Self { file, name, index, offloads })
    }

    #[must_use]
    pub fn fd(&self) -> RawFd {
        self.file.as_raw_fd()
    }

    /// Reads one packet behind its header, or `WouldBlock`.
    ///
    /// # Errors
    /// If there is none, or the interface is gone.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        (&self.file).read(buffer)
    }

    /// Writes one packet, given as header and slices.
    ///
    /// # Errors
    /// As the kernel says; `EINVAL` for a super-packet means that it does not take them.
    pub fn write_slices(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        (&self.file).write_vectored(slices)
    }

    /// Writes one whole packet.
    ///
    /// # Errors
    /// As the kernel says.
    pub fn write_packet(&self, packet: &[u8]) -> io::Result<usize> {
        self.write_slices(&[IoSlice::new(&VnetHeader::PLAIN.encode()), IoSlice::new(packet)])
    }
}

/// All offloads, or those of TCP, or none: the kernel takes a set as a whole or not at all.
fn set_offloads(file: &File, wanted: bool) -> Offloads {
    // SAFETY: this ioctl takes its argument by value.
    let set = |flags: libc::c_uint| unsafe {
        libc::ioctl(file.as_raw_fd(), libc::TUNSETOFFLOAD as _, libc::c_ulong::from(flags)) == 0
    };
    if wanted && set(TCP | UDP) {
        return Offloads { tcp: true, udp: true };
    }
    if wanted && set(TCP) {
        return Offloads { tcp: true, udp: false };
    }
    set(0);
    Offloads { tcp: false, udp: false }
}

fn set_mtu(name: &str, mtu: u16) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind("127.0.0.1:0").or_else(|_| std::net::UdpSocket::bind("[::]:0"))?;
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_mtu = i32::from(mtu);
    // SAFETY: the request is a whole ifreq that lives through the call.
    checked(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFMTU as _, &request) }).map(drop)
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: ifreq is plain old data, for which zero bytes are a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    if name.len() >= request.ifr_name.len() || name.contains(['\0', '/']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("not an interface name: {name:?}")));
    }
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    Ok(request)
}

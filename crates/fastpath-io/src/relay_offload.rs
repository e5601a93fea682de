//! Lets the kernel forward a relay's channels at one interface: chooses what the program has to know, attaches it, and
//! permits it to ask for routes.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::FileExt as _;
use std::{ffi, ptr};

use fastpath::relay::Channel;
pub use relay_xdp::Mode;
use relay_xdp::{Offload, Route};

use crate::checked;
use crate::socket_address::RawAddress;

/// At which interface, and where in the kernel.
pub struct Settings {
    pub interface: String,
    pub mode: Mode,
}

/// Where a relay is reached.
pub struct Place<'a> {
    pub listen_port: u16,
    pub bind4: Option<Ipv4Addr>,
    pub bind6: Option<Ipv6Addr>,
    pub public: &'a [IpAddr],
}

/// A relay's channels in the kernel, until it is dropped.
pub struct RelayOffload {
    offload: Offload,
    public: Vec<IpAddr>,
    _permits: Vec<Permit>,
}

impl RelayOffload {
    /// Attaches the program to its interface.
    ///
    /// # Errors
    /// Says why not, for people.
    pub fn attach(settings: &Settings, place: &Place<'_>) -> Result<Self, String> {
        let interfaces = addresses().map_err(|error| format!("cannot list addresses: {error}"))?;
        let (own4, own6) = own_addresses(&settings.interface, place, &interfaces);
        if own4.is_none() && own6.is_none() {
            return Err(format!("{} has no address that this relay serves", settings.interface));
        }
        let mut permits = Vec::new();
        for (wanted, family) in [(own4.is_some(), "ipv4"), (own6.is_some(), "ipv6")] {
            if wanted {
                permits.extend(permit_lookups(family)?);
            }
        }
        let Settings { interface, mode } = settings;
        let listen_port = place.listen_port;
        let offload = Offload::attach(&relay_xdp::Settings { interface, mode: *mode, listen_port, own4, own6 })?;
        Ok(Self { offload, public: place.public.to_vec(), _permits: permits })
    }

    pub fn add(&mut self, channel: &Channel) {
        self.offload.add(&self.route(channel));
    }

    pub fn remove(&mut self, channel: &Channel) {
        self.offload.remove(&self.route(channel));
    }

    /// Packets and bytes to the peer and to the client, so far.
    pub fn traffic(&self, channel: &Channel) -> [(u64, u64); 2] {
        self.offload.traffic(&self.route(channel))
    }

    pub fn counters(&self) -> Vec<(&'static str, u64)> {
        self.offload.counters()
    }

    fn route(&self, channel: &Channel) -> Route {
        let &Channel { client, number, port, peer, .. } = channel;
        Route { client, number, port, peer, is_here: self.public.contains(&peer.ip()) }
    }
}

/// An address of this host.
struct Address {
    interface: String,
    is_loopback: bool,
    ip: IpAddr,
}

/// The address of each family that frames to this relay carry: what it is bound to; else its public address, if this
/// host has it there or on its loopback; else, behind a NAT, the interface's first.
fn own_addresses(interface: &str, place: &Place<'_>, addresses: &[Address]) -> (Option<Ipv4Addr>, Option<Ipv6Addr>) {
    let is_ours = |one: &&Address| one.interface == interface || one.is_loopback;
    let own = |bound: Option<IpAddr>| {
        let bound = bound?;
        if !bound.is_unspecified() {
            return Some(bound);
        }
        let mut candidates = addresses.iter().filter(|one| one.ip.is_ipv4() == bound.is_ipv4());
        let public = candidates.clone().filter(is_ours).find(|one| place.public.contains(&one.ip));
        let first = || candidates.find(|one| one.interface == interface && !is_link_local(one.ip));
        public.or_else(first).map(|one| one.ip)
    };
    let own4 = own(place.bind4.map(IpAddr::V4)).and_then(|ip| if let IpAddr::V4(ip) = ip { Some(ip) } else { None });
    let own6 = own(place.bind6.map(IpAddr::V6)).and_then(|ip| if let IpAddr::V6(ip) = ip { Some(ip) } else { None });
    (own4, own6)
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The kernel looks up routes for a program only from an interface that forwards. Loopback is asked, whose
/// routes are those of the host's own datagrams; nothing that it forwards could come from elsewhere.
struct Permit(File);

impl Drop for Permit {
    fn drop(&mut self) {
        let _too_late = self.0.write_at(b"0", 0);
    }
}

/// Permits lookups in one family; `None` if they are permitted already.
fn permit_lookups(family: &str) -> Result<Option<Permit>, String> {
    let path = format!("/proc/sys/net/{family}/conf/lo/forwarding");
    let mut present = String::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_string(&mut present));
    let refused =
        |error: io::Error| format!("net.{family}.conf.lo.forwarding must be 1, and cannot be set here: {error}");
    read.map_err(refused)?;
    if present.trim() != "0" {
        return Ok(None);
    }
    let file = OpenOptions::new().write(true).open(&path).map_err(refused)?;
    file.write_at(b"1", 0).map_err(refused)?;
    Ok(Some(Permit(file)))
}

/// All addresses of all interfaces, as the kernel lists them.
fn addresses() -> io::Result<Vec<Address>> {
    let mut head = ptr::null_mut();
    // SAFETY: writes a list to the local, or fails.
    checked(unsafe { libc::getifaddrs(&raw mut head) })?;
    let mut found = Vec::new();
    let mut next = head;
    // SAFETY: the list's entries live until it is freed, below; the last one's link is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        // SAFETY: an entry's name is a C string; its address is null or has its family's size.
        if let Some(ip) = unsafe { ip_of(entry.ifa_addr) } {
            // SAFETY: as above.
            let interface = unsafe { ffi::CStr::from_ptr(entry.ifa_name) }.to_string_lossy().into_owned();
            let is_loopback = entry.ifa_flags & libc::IFF_LOOPBACK as libc::c_uint != 0;
            found.push(Address { interface, is_loopback, ip });
        }
    }
    // SAFETY: this is the list of above, and nothing points into it any more.
    unsafe { libc::freeifaddrs(head) };
    Ok(found)
}

/// # Safety
/// `address` is null, or points to a socket address as long as its family says.
unsafe fn ip_of(address: *const libc::sockaddr) -> Option<IpAddr> {
    // SAFETY: not null as checked, and at least a family.
    let family = unsafe { address.as_ref() }?.sa_family;
    let size = match libc::c_int::from(family) {
        libc::AF_INET => size_of::<libc::sockaddr_in>(),
        libc::AF_INET6 => size_of::<libc::sockaddr_in6>(),
        _ => return None,
    };
    let mut raw = RawAddress::EMPTY;
    // SAFETY: both have `size` bytes, and the one is a local.
    unsafe { ptr::copy_nonoverlapping(address.cast::<u8>(), raw.as_mut_ptr().cast::<u8>(), size) };
    raw.decode().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect("a literal address")
    }

    fn host() -> Vec<Address> {
        let listed = [
            ("lo", "127.0.0.1"),
            ("lo", "203.0.113.9"),
            ("eth0", "10.0.0.5"),
            ("eth0", "203.0.113.3"),
            ("eth1", "10.1.0.5"),
            ("eth0", "fe80::5"),
            ("eth0", "2001:db8::5"),
        ];
        let address =
            |(name, text): (&str, &str)| Address { interface: name.into(), is_loopback: name == "lo", ip: ip(text) };
        listed.map(address).into()
    }

    fn chosen(interface: &str, bind: [Option<&str>; 2], public: &[&str]) -> [Option<String>; 2] {
        let public: Vec<_> = public.iter().map(|text| ip(text)).collect();
        let place = Place {
            listen_port: 3478,
            bind4: bind[0].map(|text| text.parse().expect("a literal address")),
            bind6: bind[1].map(|text| text.parse().expect("a literal address")),
            public: &public,
        };
        let (own4, own6) = own_addresses(interface, &place, &host());
        [own4.map(|ip| ip.to_string()), own6.map(|ip| ip.to_string())]
    }

    #[test]
    fn frames_to_us_carry_the_public_address_if_the_host_has_it_and_else_the_interfaces_first() {
        let any = [Some("0.0.0.0"), Some("::")];
        let own = |one: &str, other: &str| [Some(one.to_owned()), Some(other.to_owned())];

        assert_eq!(chosen("eth0", any, &["203.0.113.3", "2001:db8::5"]), own("203.0.113.3", "2001:db8::5"));
        assert_eq!(chosen("eth0", any, &["203.0.113.9"]), own("203.0.113.9", "2001:db8::5"));
        assert_eq!(chosen("eth0", any, &["198.51.100.1"]), own("10.0.0.5", "2001:db8::5"));
        assert_eq!(chosen("eth1", any, &["203.0.113.3"]), [Some("10.1.0.5".into()), None]);
    }

    #[test]
    fn what_is_bound_counts_and_a_family_that_is_not_bound_is_not_ours() {
        assert_eq!(chosen("eth0", [Some("10.0.0.5"), None], &["203.0.113.3"]), [Some("10.0.0.5".into()), None]);
    }

    #[test]
    fn this_host_has_a_loopback_address() {
        let own = addresses().expect("listed");
        assert!(own.iter().any(|one| one.is_loopback && one.ip.is_loopback()));
    }
}

//! What the program and user space share, byte for byte as `bpf/relay.bpf.c` declares it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Its names are the metrics' names; in the order of the program's `enum counter`.
pub const COUNTERS: [&str; 9] = [
    "xdp_forwarded_to_peer",
    "xdp_forwarded_to_client",
    "xdp_passed_other",
    "xdp_passed_control",
    "xdp_passed_unknown",
    "xdp_passed_unusual",
    "xdp_passed_too_big",
    "xdp_passed_route",
    "xdp_errors",
];

/// `struct config`
pub type Config = [u8; 32];
/// `struct sender`
pub type Sender = [u8; 24];
/// `struct target`
pub type Target = [u8; 40];

/// The loopback interface, in every network namespace.
const LOOPBACK_INDEX: u32 = 1;
const INET: u8 = 2;
const INET6: u8 = 10;

pub fn config(own4: Option<Ipv4Addr>, own6: Option<Ipv6Addr>, listen_port: u16, may_redirect: bool) -> Config {
    let mut bytes = [0; 32];
    bytes[..16].copy_from_slice(&own6.map_or([0; 16], |ip| ip.octets()));
    bytes[16..20].copy_from_slice(&own4.map_or([0; 4], |ip| ip.octets()));
    bytes[20..24].copy_from_slice(&LOOPBACK_INDEX.to_ne_bytes());
    bytes[24..26].copy_from_slice(&listen_port.to_be_bytes());
    bytes[26] = u8::from(may_redirect);
    bytes
}

/// `other` is the channel's number if a client sends, the allocation's port if a peer does.
pub fn sender(address: SocketAddr, other: u16) -> Sender {
    let mut bytes = [0; 24];
    let family = put_endpoint(&mut bytes, address, other);
    bytes[20..].copy_from_slice(&u32::from(family).to_ne_bytes());
    bytes
}

/// `other` is the allocation's port if a peer is meant, the channel's number if a client is.
pub fn target(address: SocketAddr, other: u16, is_here: bool) -> Target {
    let mut bytes = [0; 40];
    bytes[20] = put_endpoint(&mut bytes, address, other);
    bytes[21] = u8::from(is_here);
    bytes
}

/// Packets and bytes that went to it.
pub fn traffic(target: &Target) -> (u64, u64) {
    let number = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&target[at..at + 8]);
        u64::from_ne_bytes(bytes)
    };
    (number(24), number(32))
}

/// The first 20 bytes of both; returns the family.
fn put_endpoint(bytes: &mut [u8], address: SocketAddr, other: u16) -> u8 {
    bytes[16..18].copy_from_slice(&address.port().to_be_bytes());
    bytes[18..20].copy_from_slice(&other.to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => {
            bytes[..4].copy_from_slice(&ip.octets());
            INET
        }
        IpAddr::V6(ip) => {
            bytes[..16].copy_from_slice(&ip.octets());
            INET6
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_of_one_address_are_told_apart() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:7".parse().expect("a literal address");
        let plain: SocketAddr = "192.0.2.1:7".parse().expect("a literal address");

        assert_ne!(sender(mapped, 9), sender(plain, 9));
        assert_eq!(sender(plain, 0x4001)[..20], [192, 0, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0x40, 1]);
        assert_eq!((target(mapped, 9, false)[20], target(plain, 9, true)[20..22].to_vec()), (10, vec![2, 1]));
    }
}

//! Control messages of a socket call: source address, ECN and segment size, written and read without pointers.

use std::mem::size_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ALIGN: usize = size_of::<usize>();
const HEADER_LEN: usize = size_of::<libc::cmsghdr>();
const LEN: usize = 128;

/// One call's control messages.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
pub struct Control {
    bytes: [u8; LEN],
    len: usize,
}

/// What a receive tells beside the payload.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    pub local: Option<IpAddr>,
    pub ecn: u8,
    pub segment: Option<usize>,
}

impl Control {
    pub const EMPTY: Self = Self { bytes: [0; LEN], len: 0 };
    pub const CAPACITY: usize = LEN;

    /// Control messages as the kernel would leave them; what is too long is cut off.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        let mut control = Self::EMPTY;
        control.len = bytes.len().min(LEN);
        control.bytes[..control.len].copy_from_slice(&bytes[..control.len]);
        control
    }

    pub fn as_mut_ptr(&mut self) -> *mut libc::c_void {
        self.bytes.as_mut_ptr().cast()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    fn push(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let at = self.len;
        let message = HEADER_LEN + data.len();
        self.bytes[at..at + ALIGN].copy_from_slice(&message.to_ne_bytes());
        self.bytes[at + ALIGN..at + ALIGN + 4].copy_from_slice(&level.to_ne_bytes());
        self.bytes[at + ALIGN + 4..at + ALIGN + 8].copy_from_slice(&kind.to_ne_bytes());
        self.bytes[at + HEADER_LEN..at + message].copy_from_slice(data);
        self.len += message.next_multiple_of(ALIGN);
    }

    /// What a send needs; the segment size only if there are several.
    pub fn for_send(is_v6: bool, local: Option<IpAddr>, ecn: u8, segment: Option<usize>) -> Self {
        let mut control = Self::EMPTY;
        if let Some(segment) = segment {
            control.push(libc::SOL_UDP, libc::UDP_SEGMENT, &(segment as u16).to_ne_bytes());
        }
        if ecn != 0 {
            let (level, kind) =
                if is_v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
            control.push(level, kind, &libc::c_int::from(ecn).to_ne_bytes());
        }
        match local {
            Some(IpAddr::V4(ip)) if !is_v6 && !ip.is_unspecified() => {
                // struct in_pktinfo: interface, source to use, (receive only) destination
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) if is_v6 && !ip.is_unspecified() => {
                // struct in6_pktinfo: address, interface
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                control.push(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        control
    }

    /// Reads the first `len` bytes as the kernel left them.
    pub fn parse(&self, len: usize) -> Received {
        let mut received = Received::default();
        let mut rest = &self.bytes[..len.min(LEN)];
        while rest.len() >= HEADER_LEN {
            let word = |at: usize| libc::c_int::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
            let mut message = [0; ALIGN];
            message.copy_from_slice(&rest[..ALIGN]);
            let message = usize::from_ne_bytes(message);
            if message < HEADER_LEN || message > rest.len() {
                break;
            }
            let data = &rest[HEADER_LEN..message];
            match (word(ALIGN), word(ALIGN + 4), data) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO, [_, _, _, _, _, _, _, _, a, b, c, d]) => {
                    received.local = Some(Ipv4Addr::new(*a, *b, *c, *d).into());
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, data) if data.len() >= 16 => {
                    let mut octets = [0; 16];
                    octets.copy_from_slice(&data[..16]);
                    received.local = Some(Ipv6Addr::from(octets).into());
                }
                (libc::IPPROTO_IP, libc::IP_TOS, [tos, ..]) => received.ecn = tos & 3,
                (libc::IPPROTO_IPV6, libc::IPV6_TCLASS, [a, b, c, d]) => {
                    received.ecn = libc::c_int::from_ne_bytes([*a, *b, *c, *d]) as u8 & 3;
                }
                (libc::SOL_UDP, libc::UDP_GRO, [a, b, ..]) => {
                    // The kernel gives an int; the size fits its lower half.
                    let segment = match data {
                        [a, b, c, d] => libc::c_int::from_ne_bytes([*a, *b, *c, *d]) as usize,
                        _ => usize::from(u16::from_ne_bytes([*a, *b])),
                    };
                    received.segment = Some(segment);
                }
                _ => {}
            }
            rest = rest.get(message.next_multiple_of(ALIGN)..).unwrap_or(&[]);
        }
        received
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let local: IpAddr = "2001:db8::1".parse().unwrap();
        let control = Control::for_send(true, Some(local), 2, Some(1312));
        let received = control.parse(control.len());
        assert_eq!((received.local, received.ecn, received.segment), (Some(local), 2, None));
    }

    #[test]
    fn a_cut_control_message_is_ignored() {
        let control = Control::for_send(true, None, 2, Some(1312));
        for len in 0..control.len() {
            control.parse(len);
        }
    }
}

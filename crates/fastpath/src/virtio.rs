//! The header in front of each packet of a TUN device with offloads: `struct virtio_net_hdr`, in native byte order.

/// Length of the header.
pub const VNET_HEADER_LEN: usize = 10;

const NEEDS_CSUM: u8 = 1;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_UDP_L4: u8 = 5;
const GSO_ECN: u8 = 0x80;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gso {
    None,
    Tcp4,
    Tcp6,
    Udp,
    /// A kind that we did not ask for.
    Other,
}

/// How a packet of the TUN device is to be cut and summed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VnetHeader {
    pub needs_checksum: bool,
    pub gso: Gso,
    pub header_len: u16,
    pub segment_size: u16,
    pub checksum_start: u16,
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// A packet that is whole and summed.
    pub const PLAIN: Self = Self {
        needs_checksum: false,
        gso: Gso::None,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    #[must_use]
    pub fn decode(bytes: &[u8; VNET_HEADER_LEN]) -> Self {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        Self {
            needs_checksum: bytes[0] & NEEDS_CSUM != 0,
            gso: match bytes[1] & !GSO_ECN {
                GSO_NONE => Gso::None,
                GSO_TCPV4 => Gso::Tcp4,
                GSO_TCPV6 => Gso::Tcp6,
                GSO_UDP_L4 => Gso::Udp,
                _ => Gso::Other,
            },
            header_len: word(2),
            segment_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    #[must_use]
    pub fn encode(&self) -> [u8; VNET_HEADER_LEN] {
        let mut bytes = [0; VNET_HEADER_LEN];
        bytes[0] = if self.needs_checksum { NEEDS_CSUM } else { 0 };
        bytes[1] = match self.gso {
            Gso::None | Gso::Other => GSO_NONE,
            Gso::Tcp4 => GSO_TCPV4,
            Gso::Tcp6 => GSO_TCPV6,
            Gso::Udp => GSO_UDP_L4,
        };
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

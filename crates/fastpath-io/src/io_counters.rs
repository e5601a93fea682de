//! What the two threads did, by name.

fastpath::counters! {
    /// Counted by the threads and by what Python sends.
    pub struct IoCounters {
        tun_reads,
        tun_super_packets,
        tun_writes,
        tun_writes_coalesced,
        tun_write_errors,
        /// The kernel refused a super-packet; it was written in pieces and no more are made.
        tun_offload_fallbacks,
        udp_send_calls,
        udp_sends,
        udp_sent_datagrams,
        udp_sent_bytes,
        udp_send_errors,
        udp_send_waits,
        /// The kernel refused a GSO send; it was repeated datagram by datagram.
        udp_gso_fallbacks,
        udp_receive_calls,
        udp_receives,
        udp_received_datagrams,
        udp_received_bytes,
        udp_receive_errors,
        udp_truncated,
        /// No socket of the destination's family.
        udp_no_socket,
    }
}

//! Everything that is counted, by name.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Adds to a counter; statistics need no order among threads.
pub fn add(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Relaxed);
}

pub fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Declares a struct of counters that knows their names.
#[macro_export]
macro_rules! counters {
    ($(#[$doc:meta])* pub struct $type:ident { $($(#[$field_doc:meta])* $name:ident,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub struct $type { $($(#[$field_doc])* pub $name: std::sync::atomic::AtomicU64,)* }

        impl $type {
            /// Name and value of each, in the order of declaration.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name.load(std::sync::atomic::Ordering::Relaxed)),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Packets, datagrams and requests by what became of them.
    pub struct Counters {
    /// Packets of known flows that left as datagrams.
    packets_sealed,
    bytes_sealed,
    /// Packets of known flows that came as datagrams.
    packets_opened,
    bytes_opened,
    /// Datagrams opened several at once; zero on a processor that cannot.
    datagrams_opened_together,
    keepalives_received,
    upcalls_packet,
    upcalls_datagram,
    upcalls_session,
    /// The ring was full.
    upcalls_dropped_full,
    /// One peer, the TUN device or all strangers together had too many waiting.
    upcalls_dropped_share,
    /// Later segments of a super-packet whose first one became an upcall.
    segments_dropped_unknown_flow,
    packets_malformed,
    packets_fragmented,
    packets_extension_header,
    packets_source_routed,
    packets_too_long,
    offload_refused,
    dropped_no_path,
    dropped_no_session,
    sessions_exhausted,
    datagrams_malformed,
    datagrams_unknown_session,
    datagrams_expired_session,
    datagrams_not_authentic,
    datagrams_replayed,
    datagrams_unknown_channel,
    channel_data_malformed,
    flows_added,
    /// Packets whose flow was opened while they waited for the decision.
    flows_known,
    flows_removed,
    flows_expired,
    flows_refused_bound,
    flows_refused_taken,
}
}

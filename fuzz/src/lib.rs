//! The fuzz targets of the native module, by name. Each takes any bytes and panics on a bug.
//!
//! The checks are those of the property tests: the packet path against its model.

use fastpath_io::control::Control;

#[path = "../../crates/fastpath/tests/model/mod.rs"]
mod model;

use model::{coalesce, congestion, headers, pipeline, queue, raw, relay, split};

/// A target's name, which is that of its corpus, too.
pub type Target = (&'static str, fn(&[u8]));

/// All targets: the decoders on bytes without any form, and the packet path on structured cases.
pub const TARGETS: [Target; 14] = [
    ("native-headers", raw::headers),
    ("native-tun-read", raw::tun_read),
    ("native-datagram", raw::datagram),
    ("native-inner-packet", raw::inner),
    ("native-handshake", raw::handshake),
    ("native-channel-data", raw::channel_data),
    ("native-control-messages", control_messages),
    ("native-split", split::check),
    ("native-coalesce", coalesce::check),
    ("native-send-queue", queue::check),
    ("native-pipeline", pipeline::check),
    ("native-congestion", congestion::check),
    ("native-hidden-headers", headers::check),
    ("native-relay", relay::check),
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<fn(&[u8])> {
    TARGETS.iter().find(|(own, _)| *own == name).map(|(_, check)| *check)
}

/// What the kernel tells beside a datagram; it may be cut anywhere.
fn control_messages(bytes: &[u8]) {
    let received = Control::of(bytes).parse(bytes.len());
    assert!(received.ecn <= 3);
}

//! The packet path against its model, with random cases; the same checks run under the fuzzer.

mod model;

use model::{coalesce, congestion, headers, pipeline, queue, raw, relay, split};
use proptest::prelude::*;

/// What a case is read from; a failure prints it in the form that a file of the corpus can be made of.
#[derive(Clone)]
struct Bytes(Vec<u8>);

impl std::fmt::Debug for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

fn bytes(most: usize) -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..most).prop_map(Bytes)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_super_packet_is_cut_as_the_kernel_would(case in bytes(200)) {
        split::check(&case.0);
    }

    #[test]
    fn what_is_joined_can_be_cut_again(case in bytes(1500)) {
        coalesce::check(&case.0);
    }

    #[test]
    fn what_is_queued_leaves_whole_and_in_order(case in bytes(600)) {
        queue::check(&case.0);
    }

    #[test]
    fn batches_do_what_single_packets_do(case in bytes(1500)) {
        pipeline::check(&case.0);
    }

    #[test]
    fn a_packet_changes_only_as_it_must(case in bytes(200)) {
        congestion::check(&case.0);
    }

    #[test]
    fn what_could_hide_a_transport_header_does_not_pass(case in bytes(200)) {
        headers::check(&case.0);
    }

    #[test]
    fn a_relay_forwards_to_whom_the_channel_names(case in bytes(600)) {
        relay::check(&case.0);
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(case in bytes(300), first in prop::sample::select(vec![0x45_u8, 0x60, 0x46, 4, 1, 0x40])) {
        let mut led = case.0.clone();
        led.iter_mut().take(1).for_each(|byte| *byte = first);
        for bytes in [&case.0, &led] {
            raw::headers(bytes);
            raw::tun_read(bytes);
            raw::datagram(bytes);
            raw::inner(bytes);
            raw::channel_data(bytes);
        }
        raw::handshake(&case.0);
    }
}

#[test]
fn congestion_marks_pass_in_and_out_in_all_combinations() {
    let world = model::world::World::new();
    for (way, number) in [(model::world::Way::Up, 0), (model::world::Way::Down, 2), (model::world::Way::Up, 4)] {
        for (inner, outer) in (0..16).map(|both| (both / 4, both % 4)) {
            for dscp in [0, 46, 63] {
                let (packet, expected) = congestion::marked(way, number, inner, dscp);
                congestion::travels(&world, way, &packet, &expected, outer, congestion::Damage::None);
            }
        }
    }
}

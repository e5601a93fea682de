//! Which counters of a session were seen.

/// How far behind the highest counter a packet may be.
pub const WINDOW: u64 = 8192;

const WORD_BITS: u64 = 64;
/// One word more than the window, so that the word being filled never hides one still inside the window.
const WORDS: u64 = WINDOW / WORD_BITS + 1;

/// A bitmap that moves with the highest counter (the scheme of RFC 6479).
pub struct ReplayWindow {
    /// One past the highest counter seen; 0 while none was.
    next: u64,
    seen: [u64; WORDS as usize],
}

impl Default for ReplayWindow {
    fn default() -> Self {
        Self { next: 0, seen: [0; WORDS as usize] }
    }
}

impl ReplayWindow {
    /// Remembers `counter` and returns whether it was new. Only for packets that authenticated.
    pub fn accept(&mut self, counter: u64) -> bool {
        if counter == u64::MAX || counter.saturating_add(WINDOW) < self.next {
            return false;
        }
        if counter >= self.next {
            self.advance(counter);
        }
        let word = &mut self.seen[(counter / WORD_BITS % WORDS) as usize];
        let bit = 1 << (counter % WORD_BITS);
        let is_new = *word & bit == 0;
        *word |= bit;
        is_new
    }

    fn advance(&mut self, counter: u64) {
        // Of `next == 0` the word 0 is clean already.
        let current = self.next.saturating_sub(1) / WORD_BITS;
        let skipped = (counter / WORD_BITS - current).min(WORDS);
        for step in 1..=skipped {
            self.seen[((current + step) % WORDS) as usize] = 0;
        }
        self.next = counter + 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn agrees_with_a_set(steps in proptest::collection::vec((any::<bool>(), 0u64..20_000), 1..400)) {
            let (mut window, mut seen, mut next) = (ReplayWindow::default(), HashSet::new(), 0u64);
            for (ahead, distance) in steps {
                let counter = if ahead { next + distance % 300 } else { next.saturating_sub(distance) };
                let expected = counter + WINDOW >= next && seen.insert(counter);
                next = next.max(counter + 1);
                prop_assert_eq!(window.accept(counter), expected, "{}", counter);
            }
        }
    }

    #[test]
    fn a_long_jump_forgets_everything_behind() {
        let mut window = ReplayWindow::default();
        assert!(window.accept(5));
        assert!(window.accept(1 << 40));
        assert!(!window.accept(5));
        assert!(!window.accept(1 << 40));
        assert!(window.accept((1 << 40) - WINDOW + 1));
        assert!(!window.accept(u64::MAX));
    }
}

//! Monotonic seconds that several threads may read and move.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A time, or 0.0 for never.
#[derive(Default)]
pub struct AtomicTime(AtomicU64);

impl AtomicTime {
    #[must_use]
    pub fn new(at: f64) -> Self {
        Self(AtomicU64::new(at.to_bits()))
    }

    #[must_use]
    pub fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Relaxed))
    }

    pub fn set(&self, at: f64) {
        self.0.store(at.to_bits(), Relaxed);
    }

    /// Sets it unless it is set.
    pub fn set_first(&self, at: f64) {
        if self.0.load(Relaxed) == 0 {
            let _ = self.0.compare_exchange(0, at.to_bits(), Relaxed, Relaxed);
        }
    }

    /// Clears it; writes only if there is something to clear, so that the cache line stays shared.
    pub fn clear(&self) {
        if self.0.load(Relaxed) != 0 {
            self.0.store(0, Relaxed);
        }
    }
}

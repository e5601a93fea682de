//! Doing something at a fixed rate without spinning, which would take a core from the tunnel under test.

use std::thread;
use std::time::{Duration, Instant};

/// How often a sender wakes: short enough that what is due at once fits into any queue on the way.
const TICK: Duration = Duration::from_micros(200);

/// How much is due, and sleep until more is.
pub struct Pace {
    began: Instant,
    lasts: Duration,
    rate: f64,
    done: u64,
}

impl Pace {
    /// Starts now; `rate` is in events per second.
    pub fn new(rate: f64, lasts: Duration) -> Self {
        // SAFETY: the option takes one number, and concerns this thread's timers alone.
        unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
        Self { began: Instant::now(), lasts, rate, done: 0 }
    }

    /// Sleeps until at least one event is due, and gives how many are, at most `limit`; `None` at the end.
    ///
    /// What a late wake-up missed is made up for at once; the end comes when the time is over, done or not.
    pub fn wait(&mut self, limit: usize) -> Option<usize> {
        loop {
            let elapsed = self.began.elapsed();
            if elapsed >= self.lasts {
                return None;
            }
            let due = (elapsed.as_secs_f64() * self.rate) as u64 + 1;
            if due > self.done {
                let now = (due - self.done).min(limit as u64);
                self.done += now;
                return Some(now as usize);
            }
            let next = Duration::from_secs_f64(self.done as f64 / self.rate);
            thread::sleep(next.saturating_sub(elapsed).max(TICK).min(self.lasts - elapsed));
        }
    }

    /// How long it has been going on.
    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

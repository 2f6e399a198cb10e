//! One receiver's share of the courier: what flies to it, what waits for it, how quick it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much an attempt's time counts against those before.
const FRESH: f64 = 0.3;
/// Seconds that an attempt is thought to take before there was one.
const GUESS: f64 = 0.1;
/// Messages that may wait in memory for one receiver.
pub(crate) const MOST_WAITING: usize = 32;
/// A receiver that works off what waits within this is waited for.
const QUICK: f64 = 0.25;
/// The longest that a message is put back for.
const LONGEST: f64 = 60.0;

/// One receiver, known by its origin.
#[derive(Debug)]
pub(crate) struct Lane<M> {
    flying: usize,
    waiting: VecDeque<M>,
    /// Seconds that an attempt takes, by those so far.
    average: f64,
    /// The last attempt did not arrive.
    failing: bool,
    /// Messages put back because of this receiver and not seen since, about.
    postponed: usize,
    used: Instant,
}

impl<M> Lane<M> {
    pub(crate) fn new(now: Instant) -> Self {
        Self { flying: 0, waiting: VecDeque::new(), average: GUESS, failing: false, postponed: 0, used: now }
    }

    /// Attempts that it may have in flight: one that fails gets few, so that many dead receivers do
    /// not take all the room.
    fn limit(&self, most: usize) -> usize {
        if self.failing { most.min(2) } else { most.max(1) }
    }

    /// Whether the next of those that wait may start.
    pub(crate) fn may_start(&self, most: usize) -> bool {
        !self.waiting.is_empty() && self.flying < self.limit(most)
    }

    pub(crate) fn flying(&self) -> usize {
        self.flying
    }

    /// Takes a message in, or says for how long it is to be put back.
    pub(crate) fn offer(&mut self, message: M, most: usize, now: Instant) -> Result<(), (M, Duration)> {
        self.used = now;
        self.postponed = self.postponed.saturating_sub(1);
        if self.waiting.len() < MOST_WAITING {
            self.waiting.push_back(message);
            return Ok(());
        }
        self.postponed += 1;
        Err((message, self.back_in(most)))
    }

    /// When a message put back now may find room: after all that waits here and was put back before.
    #[allow(clippy::cast_precision_loss)]
    fn back_in(&self, most: usize) -> Duration {
        let before = (self.waiting.len() + self.postponed) as f64;
        let seconds = before * self.average / self.limit(most) as f64;
        Duration::from_secs_f64(seconds.clamp(QUICK, LONGEST))
    }

    /// Full, but soon worked off: worth waiting for instead of putting its messages back.
    #[allow(clippy::cast_precision_loss)]
    pub(crate) fn soon_free(&self, most: usize) -> bool {
        self.waiting.len() >= MOST_WAITING
            && self.waiting.len() as f64 * self.average / self.limit(most) as f64 <= QUICK
    }

    pub(crate) fn start(&mut self, now: Instant) -> Option<M> {
        let message = self.waiting.pop_front()?;
        self.flying += 1;
        self.used = now;
        Some(message)
    }

    pub(crate) fn ended(&mut self, took: Duration, arrived: bool, now: Instant) {
        self.flying = self.flying.saturating_sub(1);
        self.average += FRESH * (took.as_secs_f64() - self.average);
        self.failing = !arrived;
        self.used = now;
    }

    /// The one that has waited longest.
    pub(crate) fn oldest(&self) -> Option<&M> {
        self.waiting.front()
    }

    /// Gives up waiting with the oldest: it is put back for so long.
    pub(crate) fn put_back(&mut self, most: usize) -> Option<(M, Duration)> {
        let message = self.waiting.pop_front()?;
        self.postponed += 1;
        Some((message, self.back_in(most)))
    }

    /// Nothing of it is here, and nothing was for a while.
    pub(crate) fn forgotten(&self, now: Instant) -> bool {
        self.flying == 0
            && self.waiting.is_empty()
            && now.saturating_duration_since(self.used) > Duration::from_secs(120)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_receiver_is_waited_for_and_a_slow_one_is_passed_over() {
        let now = Instant::now();
        let mut lane: Lane<usize> = Lane::new(now);
        for n in 0..MOST_WAITING {
            lane.offer(n, 8, now).unwrap();
        }
        for _ in 0..20 {
            lane.start(now).unwrap();
            lane.ended(Duration::from_millis(3), true, now);
            lane.offer(0, 8, now).unwrap();
        }
        assert!(lane.soon_free(8));
        for _ in 0..20 {
            lane.start(now).unwrap();
            lane.ended(Duration::from_secs(5), false, now);
            lane.offer(0, 8, now).unwrap();
        }
        assert!(!lane.soon_free(8));
        let (_, first) = lane.offer(1, 8, now).unwrap_err();
        let (_, second) = lane.offer(2, 8, now).unwrap_err();
        assert!(first > Duration::from_secs(30) && second >= first, "{first:?} {second:?}");
        for n in 0..2 {
            assert!(lane.may_start(8), "{n}");
            lane.start(now).unwrap();
        }
        assert!(!lane.may_start(8), "few at a time while it fails");
    }
}

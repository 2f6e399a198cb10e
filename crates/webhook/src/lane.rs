//! One receiver's share of the courier: what flies to it, what waits for it, how quick it is.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How much an attempt's time counts against those before.
const FRESH: f64 = 0.3;
/// Seconds that an attempt is thought to take before there was one.
const GUESS: f64 = 0.1;
/// Messages that may wait in memory for one receiver.
const MOST_WAITING: usize = 32;
/// Messages that may wait for a receiver that is stuck, and attempts in flight to one that is not
/// known to work: so little that dozens of dead ones leave room for the others.
const FEW: usize = 2;
/// A receiver that works off what waits within this is waited for; one none of whose attempts ends
/// within this is stuck.
const QUICK: Duration = Duration::from_millis(250);
/// The longest that a message is put back for, seconds.
const LONGEST: f64 = 60.0;

/// One receiver, known by its origin.
#[derive(Debug)]
pub(crate) struct Lane<M> {
    flying: usize,
    waiting: VecDeque<M>,
    /// Seconds that an attempt takes, by those so far.
    average: f64,
    /// The last attempt arrived.
    works: bool,
    /// When an attempt last ended, or the first of those in flight began.
    progress: Instant,
    /// Messages put back because of this receiver and not seen since, about.
    postponed: usize,
    used: Instant,
}

impl<M> Lane<M> {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            flying: 0,
            waiting: VecDeque::new(),
            average: GUESS,
            works: false,
            progress: now,
            postponed: 0,
            used: now,
        }
    }

    /// Attempts that it may have in flight.
    fn limit(&self, most: usize) -> usize {
        if self.works { most.max(1) } else { most.clamp(1, FEW) }
    }

    /// Messages that may wait for it.
    fn room(&self, now: Instant) -> usize {
        let stuck = self.flying > 0 && now.saturating_duration_since(self.progress) >= QUICK;
        if stuck { FEW } else { MOST_WAITING }
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
        if self.waiting.len() < self.room(now) {
            self.waiting.push_back(message);
            return Ok(());
        }
        self.postponed += 1;
        Err((message, self.back_in(most, now)))
    }

    /// Seconds until so many are worked off, by the attempts so far and those that will not end.
    #[allow(clippy::cast_precision_loss)]
    fn seconds_for(&self, messages: usize, most: usize, now: Instant) -> f64 {
        let flies =
            if self.flying > 0 { now.saturating_duration_since(self.progress) } else { Duration::ZERO };
        messages as f64 * self.average.max(flies.as_secs_f64()) / self.limit(most) as f64
    }

    /// When a message put back now may find room: after all that waits here and was put back before.
    fn back_in(&self, most: usize, now: Instant) -> Duration {
        let seconds = self.seconds_for(self.waiting.len() + self.postponed, most, now);
        Duration::from_secs_f64(seconds.clamp(QUICK.as_secs_f64(), LONGEST))
    }

    /// Full, but soon worked off: worth waiting for instead of putting its messages back.
    pub(crate) fn soon_free(&self, most: usize, now: Instant) -> bool {
        self.waiting.len() >= MOST_WAITING
            && self.room(now) == MOST_WAITING
            && self.seconds_for(self.waiting.len(), most, now) <= QUICK.as_secs_f64()
    }

    pub(crate) fn start(&mut self, now: Instant) -> Option<M> {
        let message = self.waiting.pop_front()?;
        if self.flying == 0 {
            self.progress = now;
        }
        self.flying += 1;
        self.used = now;
        Some(message)
    }

    pub(crate) fn ended(&mut self, took: Duration, arrived: bool, now: Instant) {
        self.flying = self.flying.saturating_sub(1);
        self.average += FRESH * (took.as_secs_f64() - self.average);
        self.works = arrived;
        self.progress = now;
        self.used = now;
    }

    /// When something has to be put back though nothing happens before; `until` says when the
    /// claim on a message is to be given up.
    pub(crate) fn alarm(&self, until: impl Fn(&M) -> Instant) -> Option<Instant> {
        let stuck = (self.flying > 0 && self.waiting.len() > FEW).then(|| self.progress + QUICK);
        self.waiting.front().map(until).into_iter().chain(stuck).min()
    }

    /// A message that waits in vain, and for how long to put it back.
    pub(crate) fn in_vain(
        &mut self,
        most: usize,
        now: Instant,
        until: impl Fn(&M) -> Instant,
    ) -> Option<(M, Duration)> {
        let message = if self.waiting.front().is_some_and(|message| until(message) <= now) {
            self.waiting.pop_front()
        } else if self.waiting.len() > self.room(now) {
            self.waiting.pop_back()
        } else {
            None
        }?;
        self.postponed += 1;
        Some((message, self.back_in(most, now)))
    }

    /// Everything that waits.
    pub(crate) fn into_waiting(self) -> VecDeque<M> {
        self.waiting
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
        assert!(lane.soon_free(8, now));
        for n in 0..8 {
            assert!(lane.may_start(8), "{n}");
            lane.start(now).unwrap();
        }
        assert!(!lane.may_start(8));
        assert_eq!(lane.alarm(|_| now + QUICK * 9), Some(now + QUICK), "then it may be stuck");

        // None of them ends.
        let later = now + QUICK;
        assert!(!lane.soon_free(8, later));
        let mut back = Vec::new();
        while let Some((_, delay)) = lane.in_vain(8, later, |_| later + QUICK) {
            back.push(delay);
        }
        assert_eq!(lane.waiting.len(), FEW, "what waits for a receiver that is stuck makes room");
        assert_eq!(back.len(), MOST_WAITING - 8 - FEW);
        for _ in 0..8 {
            lane.ended(Duration::from_secs(5), false, later);
        }
        for n in 0..FEW {
            assert!(lane.may_start(8), "{n}");
            lane.start(later).unwrap();
        }
        lane.offer(1, 8, later).unwrap();
        assert!(!lane.may_start(8), "few at a time until one arrives");
        let much_later = later + QUICK;
        lane.offer(2, 8, much_later).unwrap();
        let (_, delay) = lane.offer(3, 8, much_later).unwrap_err();
        assert!(delay > Duration::from_secs(30), "{delay:?}");
    }

    #[test]
    fn a_message_is_put_back_before_its_claim_ends() {
        let now = Instant::now();
        let mut lane: Lane<Instant> = Lane::new(now);
        lane.offer(now + QUICK, 8, now).unwrap();
        lane.offer(now + 2 * QUICK, 8, now).unwrap();
        assert_eq!(lane.alarm(|until| *until), Some(now + QUICK));
        assert!(lane.in_vain(8, now, |until| *until).is_none());
        let (oldest, delay) = lane.in_vain(8, now + QUICK, |until| *until).unwrap();
        assert_eq!((oldest, delay), (now + QUICK, QUICK));
        assert!(lane.in_vain(8, now + QUICK, |until| *until).is_none());
        assert_eq!(lane.into_waiting().len(), 1);
    }
}

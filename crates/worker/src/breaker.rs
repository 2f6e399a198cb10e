//! Leaves a device alone for a while that does not answer, or refuses a login, again and again: each
//! try would hold its queue for a whole connect timeout, or bring the account closer to being locked.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use netpulse_model::{DeviceKey, ErrorCode, ErrorInfo, Timestamp};
use parking_lot::Mutex;

/// A connection that fails sooner costs nobody anything: the device said no, and may say yes at once.
const SILENCE: Duration = Duration::from_secs(1);

/// Doors kept at most; the oldest are forgotten.
const MOST: usize = 10_000;

/// What fails as a whole: a device, or a login to it (user, password, key and every option).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Door {
    device: DeviceKey,
    login: Option<[u8; 32]>,
}

#[derive(Debug)]
struct Failing {
    /// In a row.
    times: usize,
    last: Instant,
    why: String,
}

/// The breakers of a node. Another node counts for itself.
#[derive(Debug)]
pub(crate) struct Breakers {
    /// How many failures in a row open one; 0: none ever.
    failures: usize,
    pause: Duration,
    failing: Mutex<HashMap<Door, Failing>>,
}

impl Breakers {
    pub(crate) fn new(failures: usize, pause: Duration) -> Self {
        Self { failures, pause, failing: Mutex::default() }
    }

    /// Whether a connection may be tried.
    ///
    /// # Errors
    /// `BreakerOpen` with the time from when on it may, and how long that is.
    pub(crate) fn may_try(&self, device: &DeviceKey, login: &[u8; 32]) -> Result<(), (ErrorInfo, Duration)> {
        let failing = self.failing.lock();
        for login in [None, Some(*login)] {
            let door = Door { device: device.clone(), login };
            let Some(found) = failing.get(&door).filter(|found| found.times >= self.failures) else {
                continue;
            };
            let left = self.pause.saturating_sub(found.last.elapsed());
            if !left.is_zero() {
                let what = if login.is_some() { "refused this login" } else { "did not answer" };
                let message = format!(
                    "{device} {what} {} times in a row and is left alone until {} (worker.breaker_pause); the last time: {}",
                    found.times,
                    Timestamp::now().plus(left),
                    found.why
                );
                return Err((ErrorInfo::new(ErrorCode::BreakerOpen, message), left));
            }
        }
        Ok(())
    }

    /// A connection was tried and failed after `took`.
    pub(crate) fn failed(&self, device: &DeviceKey, login: &[u8; 32], error: &ErrorInfo, took: Duration) {
        let login = match error.code {
            ErrorCode::AuthenticationFailed => Some(*login),
            ErrorCode::ConnectFailed | ErrorCode::HandshakeFailed if took >= SILENCE => None,
            _ => return,
        };
        if self.failures == 0 {
            return;
        }
        let mut failing = self.failing.lock();
        if failing.len() >= MOST {
            failing.retain(|_, found| found.last.elapsed() < self.pause);
        }
        if failing.len() >= MOST {
            return;
        }
        let door = Door { device: device.clone(), login };
        let found = failing.entry(door).or_insert_with(|| Failing {
            times: 0,
            last: Instant::now(),
            why: String::new(),
        });
        found.times = found.times.saturating_add(1);
        found.last = Instant::now();
        found.why.clone_from(&error.message);
    }

    /// A connection came up.
    pub(crate) fn succeeded(&self, device: &DeviceKey, login: &[u8; 32]) {
        let mut failing = self.failing.lock();
        if !failing.is_empty() {
            failing.remove(&Door { device: device.clone(), login: None });
            failing.remove(&Door { device: device.clone(), login: Some(*login) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> DeviceKey {
        DeviceKey::new("192.0.2.1", 22, 22)
    }

    fn error(code: ErrorCode) -> ErrorInfo {
        ErrorInfo::new(code, "why")
    }

    #[test]
    fn a_silent_device_is_left_alone_for_all_and_a_refused_login_for_itself() {
        let (one, other) = ([1; 32], [2; 32]);
        let breakers = Breakers::new(2, Duration::from_secs(60));
        let silent = error(ErrorCode::ConnectFailed);
        breakers.failed(&device(), &one, &silent, SILENCE);
        assert!(breakers.may_try(&device(), &one).is_ok());
        breakers.failed(&device(), &other, &silent, SILENCE);
        let (said, left) = breakers.may_try(&device(), &one).unwrap_err();
        assert_eq!(said.code, ErrorCode::BreakerOpen);
        assert!(said.message.contains("did not answer 2 times in a row") && said.message.ends_with("why"));
        assert!(left > Duration::from_secs(50) && left <= Duration::from_secs(60));
        breakers.succeeded(&device(), &other);
        assert!(breakers.may_try(&device(), &one).is_ok());

        for _ in 0..2 {
            breakers.failed(&device(), &one, &error(ErrorCode::AuthenticationFailed), Duration::ZERO);
        }
        assert!(breakers.may_try(&device(), &one).is_err());
        assert!(breakers.may_try(&device(), &other).is_ok(), "the right password is tried at once");
    }

    #[test]
    fn who_says_no_at_once_is_asked_again_and_a_pause_ends() {
        let breakers = Breakers::new(1, Duration::from_millis(30));
        let login = [1; 32];
        breakers.failed(&device(), &login, &error(ErrorCode::ConnectFailed), Duration::from_millis(3));
        breakers.failed(&device(), &login, &error(ErrorCode::HostKeyChanged), SILENCE);
        assert!(breakers.may_try(&device(), &login).is_ok());
        breakers.failed(&device(), &login, &error(ErrorCode::HandshakeFailed), SILENCE);
        assert!(breakers.may_try(&device(), &login).is_err());
        std::thread::park_timeout(Duration::from_millis(40));
        while breakers.may_try(&device(), &login).is_err() {
            std::thread::yield_now();
        }
        breakers.failed(&device(), &login, &error(ErrorCode::ConnectFailed), SILENCE);
        assert!(breakers.may_try(&device(), &login).is_err(), "one try more, and it is left alone again");
        let never = Breakers::new(0, Duration::from_secs(60));
        never.failed(&device(), &login, &error(ErrorCode::AuthenticationFailed), SILENCE);
        assert!(never.may_try(&device(), &login).is_ok());
    }
}

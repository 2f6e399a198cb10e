//! Who brought a plugin down. The starts of a plugin are for everybody: a request that crashes it is
//! not put to it again and again, so that it cannot use them up.
//!
//! A request that was alone on its way when the plugin crashed is held to be the cause; of several,
//! one that was there twice. It is refused for a while, which grows each time. What crashes it on
//! two devices is refused on all, and so is everything for a device whose work crashed it twice.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value};

/// For how long the first time; then twice as long each time.
const FIRST: Duration = Duration::from_secs(30);
/// For how long at most.
const LONGEST: Duration = Duration::from_secs(600);
/// After that without another crash, all is forgotten.
const MEMORY: Duration = Duration::from_secs(3600);
/// What one crash counts for a request that was alone; it is shared by several.
const ALONE: u32 = 2;
/// Causes that are remembered.
const MOST: usize = 1024;
/// How long after its end without an answer a call may still have been the cause: its plugin is
/// asked whether it lives, and killed.
const AFTERWARDS: Duration = Duration::from_secs(4);

/// What of a request's body is another each time.
const VOLATILE: &[&str] = &["job_id", "run", "session", "attempt", "stream", "granted", "job"];

/// What a call is, so far as it can be the same again. The default is one that is never blamed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Errand {
    /// This very request.
    same: Option<u64>,
    /// The same work for whichever device, and whatever is done on that device.
    wider: [Option<u64>; 2],
    /// It is refused only when it was the cause twice: it has its own rules for how often it is
    /// tried, and each refusal costs it a try.
    lenient: bool,
}

impl Errand {
    /// Work on a device: the texts are what is done there.
    pub(crate) fn on_device<'a>(
        path: &str,
        device: &str,
        work: impl IntoIterator<Item = &'a str>,
        args: &Map<String, Value>,
    ) -> Self {
        let mut hash = DefaultHasher::new();
        path.hash(&mut hash);
        for text in work {
            text.hash(&mut hash);
        }
        hash_map(args, &mut hash);
        let work = hash.finish();
        device.hash(&mut hash);
        let mut of_device = DefaultHasher::new();
        ("device", device).hash(&mut of_device);
        let wider = [Some(work), Some(of_device.finish())];
        Self { same: Some(hash.finish()), wider, lenient: false }
    }

    /// A request that names no device.
    pub(crate) fn request(path: &str, body: &Map<String, Value>) -> Self {
        let mut hash = DefaultHasher::new();
        path.hash(&mut hash);
        hash_map(body, &mut hash);
        Self { same: Some(hash.finish()), ..Self::default() }
    }

    /// One that is tried again by rules of its own.
    pub(crate) fn lenient(self) -> Self {
        Self { lenient: true, ..self }
    }
}

fn hash_map(map: &Map<String, Value>, hash: &mut DefaultHasher) {
    for (key, value) in map.iter().filter(|(key, _)| !VOLATILE.contains(&key.as_str())) {
        key.hash(hash);
        value.hash(hash);
    }
}

/// What is known of one cause.
#[derive(Debug)]
struct Offence {
    /// Points towards the next refusal.
    points: u32,
    /// How often it was found to be the cause.
    times: u32,
    last: Instant,
    /// Refused until then.
    until: Option<Instant>,
    /// Of a wider cause: the requests that it was seen in.
    seen_in: Vec<u64>,
}

impl Offence {
    fn new(now: Instant) -> Self {
        Self { points: 0, times: 0, last: now, until: None, seen_in: Vec::new() }
    }

    fn refuse(&mut self, now: Instant) {
        let doubled = FIRST.saturating_mul(1 << self.times.min(16));
        self.times += 1;
        self.points = 0;
        self.until = Some(now + doubled.min(LONGEST));
    }
}

/// The causes of a plugin's crashes.
#[derive(Debug, Default)]
pub(crate) struct Ledger(Mutex<HashMap<u64, Offence>>);

impl Ledger {
    /// Whether the plugin may be asked this.
    ///
    /// # Errors
    /// The reason not to, as a sentence without a subject.
    pub(crate) fn admit(&self, errand: &Errand, now: Instant) -> Result<(), String> {
        let known = self.0.lock();
        if known.is_empty() {
            return Ok(());
        }
        let what = [
            (errand.same, "it was asked exactly this"),
            (errand.wider[0], "it was asked this for other devices"),
            (errand.wider[1], "it worked on this device"),
        ];
        for (key, what) in what {
            let Some(offence) = key.and_then(|key| known.get(&key)) else { continue };
            let Some(left) = offence.until.and_then(|until| until.checked_duration_since(now)) else {
                continue;
            };
            return Err(format!(
                "is not asked this now: it crashed {} s ago when {what}, and others need it; it is asked again in {} s",
                now.saturating_duration_since(offence.last).as_secs(),
                left.as_secs() + 1
            ));
        }
        Ok(())
    }

    /// It was asked this and lives.
    pub(crate) fn clear(&self, errand: &Errand) {
        let mut known = self.0.lock();
        if known.is_empty() {
            return;
        }
        for key in errand.same.into_iter().chain(errand.wider.into_iter().flatten()) {
            known.remove(&key);
        }
    }

    /// It crashed with these on their way.
    fn crashed(&self, suspects: &[Errand], now: Instant) {
        let alone = suspects.len() == 1;
        let mut known = self.0.lock();
        known.retain(|_, offence| now.saturating_duration_since(offence.last) < MEMORY);
        for errand in suspects {
            let Some(same) = errand.same else { continue };
            let offence = known.entry(same).or_insert_with(|| Offence::new(now));
            offence.points += if alone && !errand.lenient { ALONE } else { 1 };
            offence.last = now;
            if offence.points < ALONE {
                continue;
            }
            offence.refuse(now);
            for key in errand.wider.into_iter().flatten() {
                let wider = known.entry(key).or_insert_with(|| Offence::new(now));
                wider.last = now;
                if !wider.seen_in.contains(&same) && wider.seen_in.len() < 8 {
                    wider.seen_in.push(same);
                }
                if wider.seen_in.len() > 1 {
                    wider.refuse(now);
                }
            }
        }
        while known.len() > MOST {
            let oldest = known.iter().min_by_key(|(_, offence)| offence.last).map(|(key, _)| *key);
            if oldest.is_none_or(|key| known.remove(&key).is_none()) {
                break;
            }
        }
    }
}

/// The calls of one start that may bring it down.
#[derive(Debug, Default)]
pub(crate) struct Suspects(Mutex<(u64, HashMap<u64, Suspect>)>);

#[derive(Debug)]
struct Suspect {
    errand: Errand,
    /// It ended without an answer then.
    left: Option<Instant>,
}

impl Suspects {
    /// A call begins.
    pub(crate) fn begin(&self, errand: Errand) -> u64 {
        let mut all = self.0.lock();
        all.0 += 1;
        let number = all.0;
        if errand.same.is_some() {
            all.1.insert(number, Suspect { errand, left: None });
        }
        number
    }

    /// It was answered: it did no harm. What it was, if it can be blamed at all.
    pub(crate) fn answered(&self, number: u64) -> Option<Errand> {
        self.0.lock().1.remove(&number).map(|suspect| suspect.errand)
    }

    /// It ended without an answer.
    pub(crate) fn left(&self, number: u64) {
        let now = Instant::now();
        let mut all = self.0.lock();
        all.1.retain(|_, suspect| suspect.left.is_none_or(|at| now.duration_since(at) < AFTERWARDS));
        if let Some(suspect) = all.1.get_mut(&number) {
            suspect.left = Some(now);
        }
    }

    /// It is killed for another reason: nobody on the way is to blame.
    pub(crate) fn absolve(&self) {
        self.0.lock().1.clear();
    }

    /// The process crashed: whoever is on the way is to blame.
    pub(crate) fn blame(&self, ledger: &Ledger) {
        let now = Instant::now();
        let all = std::mem::take(&mut self.0.lock().1);
        let suspects: Vec<Errand> = all
            .into_values()
            .filter(|suspect| suspect.left.is_none_or(|at| now.duration_since(at) < AFTERWARDS))
            .map(|suspect| suspect.errand)
            .collect();
        ledger.crashed(&suspects, now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn on(device: &str, command: &str) -> Errand {
        Errand::on_device("/driver/send", device, [command], &Map::new())
    }

    #[test]
    fn a_request_that_was_alone_is_refused_at_once_and_longer_each_time() {
        let (ledger, start) = (Ledger::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        ledger.crashed(&[on("a", "boom")], start);
        let said = ledger.admit(&on("a", "boom"), at(12)).unwrap_err();
        assert!(said.contains("crashed 12 s ago") && said.contains("again in 19 s"), "{said}");
        assert!(
            ledger.admit(&on("a", "show"), at(1)).is_ok() && ledger.admit(&on("b", "boom"), at(1)).is_ok()
        );
        assert!(ledger.admit(&on("a", "boom"), at(31)).is_ok());
        ledger.crashed(&[on("a", "boom")], at(31));
        assert!(ledger.admit(&on("a", "boom"), at(90)).is_err());
        assert!(ledger.admit(&on("a", "boom"), at(92)).is_ok());
        // The same request over and over says nothing of the command, nor of the device.
        assert!(
            ledger.admit(&on("b", "boom"), at(40)).is_ok() && ledger.admit(&on("a", "x"), at(40)).is_ok()
        );
        for again in 0..8 {
            ledger.crashed(&[on("a", "boom")], at(1000 + again));
        }
        assert!(ledger.admit(&on("a", "boom"), at(1007 + 599)).is_err());
        assert!(ledger.admit(&on("a", "boom"), at(1007 + 601)).is_ok());
        ledger.clear(&on("a", "boom"));
        assert!(ledger.0.lock().is_empty());
    }

    #[test]
    fn of_several_only_who_was_there_twice() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.crashed(&[on("a", "boom"), on("b", "show"), on("c", "show")], now);
        assert!(ledger.admit(&on("a", "boom"), now).is_ok() && ledger.admit(&on("b", "show"), now).is_ok());
        ledger.crashed(&[on("a", "boom"), on("d", "show")], now);
        assert!(ledger.admit(&on("a", "boom"), now).is_err());
        assert!(ledger.admit(&on("b", "show"), now).is_ok() && ledger.admit(&on("d", "show"), now).is_ok());
    }

    #[test]
    fn a_command_that_crashes_it_on_two_devices_is_refused_on_all_and_a_device_that_does_so_twice() {
        let (ledger, now) = (Ledger::default(), Instant::now());
        ledger.crashed(&[on("a", "boom")], now);
        ledger.crashed(&[on("b", "boom")], now);
        assert!(ledger.admit(&on("c", "boom"), now).unwrap_err().contains("other devices"));
        assert!(ledger.admit(&on("c", "show"), now).is_ok() && ledger.admit(&on("a", "show"), now).is_ok());
        ledger.crashed(&[on("a", "tick")], now);
        assert!(ledger.admit(&on("a", "show"), now).unwrap_err().contains("this device"));
        assert!(ledger.admit(&on("b", "show"), now).is_ok());
    }

    #[test]
    fn what_differs_each_time_does_not_make_another_request() {
        let errand = |attempt: u32, url: &str| {
            let body = json!({"request": {"url": url}, "attempt": attempt});
            Errand::request("/webhook/call", body.as_object().unwrap())
        };
        assert_eq!(errand(1, "a"), errand(2, "a"));
        assert_ne!(errand(1, "a"), errand(1, "b"));
        let (ledger, now) = (Ledger::default(), Instant::now());
        for times in 1..=2 {
            ledger.crashed(&[errand(times, "a").lenient()], now);
            assert_eq!(ledger.admit(&errand(3, "a"), now).is_err(), times == 2, "one retry is its own");
        }
    }

    #[test]
    fn who_was_answered_is_no_suspect_and_who_left_long_ago_neither() {
        let (ledger, suspects) = (Ledger::default(), Suspects::default());
        let answered = suspects.begin(on("a", "fine"));
        suspects.begin(on("b", "boom"));
        suspects.begin(Errand::default());
        let gone = suspects.begin(on("c", "late"));
        suspects.answered(answered);
        suspects.left(gone);
        let long_ago = Instant::now().checked_sub(AFTERWARDS).unwrap();
        suspects.0.lock().1.get_mut(&gone).unwrap().left = Some(long_ago);
        suspects.blame(&ledger);
        let now = Instant::now();
        assert!(ledger.admit(&on("b", "boom"), now).is_err());
        assert!(ledger.admit(&on("a", "fine"), now).is_ok() && ledger.admit(&on("c", "late"), now).is_ok());
        suspects.begin(on("d", "show"));
        suspects.absolve();
        suspects.blame(&ledger);
        assert!(ledger.admit(&on("d", "show"), now).is_ok());
    }
}

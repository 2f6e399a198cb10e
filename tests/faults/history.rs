//! What was done and what came of it, with times: printed when a promise is broken.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

pub struct History {
    began: Instant,
    notes: Mutex<Vec<(Duration, String)>>,
    kills: Mutex<Vec<Instant>>,
    wrong: Mutex<Vec<String>>,
}

impl History {
    pub fn new() -> Self {
        Self {
            began: Instant::now(),
            notes: Mutex::default(),
            kills: Mutex::default(),
            wrong: Mutex::default(),
        }
    }

    pub fn note(&self, text: String) {
        self.notes.lock().push((self.began.elapsed(), text));
    }

    pub fn redis_killed(&self) {
        self.kills.lock().push(Instant::now());
    }

    /// When Redis was killed.
    pub fn kills(&self) -> Vec<Instant> {
        self.kills.lock().clone()
    }

    /// Something that a promise excludes.
    pub fn wrong(&self, text: String) {
        self.note(format!("WRONG: {text}"));
        self.wrong.lock().push(text);
    }

    pub fn mistakes(&self) -> Vec<String> {
        self.wrong.lock().clone()
    }

    pub fn text(&self) -> String {
        let line = |(at, text): &(Duration, String)| format!("{:8.3}  {text}\n", at.as_secs_f64());
        self.notes.lock().iter().map(line).collect()
    }

    pub fn faults(&self) -> usize {
        let of = |text: &str| {
            ["kill -9", "freeze ", "Cut ", "Swallows ", "a second", "set the clock"]
                .iter()
                .any(|w| text.starts_with(w))
        };
        self.notes.lock().iter().filter(|(_, text)| of(text)).count()
    }
}

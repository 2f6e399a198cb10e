//! How much a template may cost.

use std::time::{Duration, Instant};

/// Bounds for one compile, one render or one parse. [`Limits::default`] suits a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a template.
    pub template_bytes: usize,
    /// Bytes of the text to parse.
    pub input_bytes: usize,
    /// Bytes of one line of that text.
    pub line_bytes: usize,
    /// Cells (values and list items) of a parsed table.
    pub cells: usize,
    /// Bytes of rendered text.
    pub output_bytes: usize,
    /// Steps of a render (minijinja's fuel).
    pub fuel: u64,
    /// Nesting of calls, includes and macros while rendering.
    pub recursion: usize,
    /// Time for a compile and a parse together, or for a render; a parse is granted one second more
    /// for every 8 MB of input.
    pub time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            template_bytes: 1 << 20,
            input_bytes: 64 << 20,
            line_bytes: 1 << 20,
            cells: 4_000_000,
            output_bytes: 32 << 20,
            fuel: 2_000_000,
            recursion: 100,
            time: Duration::from_millis(800),
        }
    }
}

impl Limits {
    /// When a parse of `bytes` that begins now must have ended.
    pub fn deadline(&self, bytes: usize) -> Instant {
        Instant::now() + self.time * 5 / 8 + Duration::from_micros((bytes / 8) as u64)
    }

    /// When a compile that begins now must have ended.
    pub fn compile_deadline(&self) -> Instant {
        Instant::now() + self.time * 3 / 8
    }
}

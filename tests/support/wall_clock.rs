//! A wall clock that a test sets off while the process that goes by it runs.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The clock of one or more processes; the machine's own stays as it is.
pub struct WallClock {
    library: PathBuf,
    offset: PathBuf,
}

impl WallClock {
    /// A clock that goes right as yet; its files are kept in `folder` under its name.
    pub fn new(folder: &Path, name: &str) -> Self {
        let file = |end: &str| folder.join(format!("{name}-clock{end}"));
        let source = file(".c");
        std::fs::write(&source, include_str!("clock.c")).unwrap();
        let clock = Self { library: file(".so"), offset: file("") };
        let compiler = Command::new("cc")
            .args(["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&clock.library, &source])
            .status()
            .expect("cc (Debian package gcc)");
        assert!(compiler.success(), "clock.c does not compile");
        clock.right();
        clock
    }

    fn write(&self, micros: i64) {
        // In place: processes have the file mapped.
        let mut file = std::fs::File::options().create(true).truncate(false).write(true).open(&self.offset);
        file.as_mut().unwrap().write_all(&micros.to_ne_bytes()).unwrap();
    }

    /// Goes right (again).
    pub fn right(&self) {
        self.write(0);
    }

    /// Is that much fast from now on.
    pub fn fast(&self, by: Duration) {
        self.write(i64::try_from(by.as_micros()).unwrap());
    }

    /// Is that much slow from now on.
    pub fn slow(&self, by: Duration) {
        self.write(-i64::try_from(by.as_micros()).unwrap());
    }

    /// What a process needs in its environment to go by this clock.
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_OFFSET", &self.offset)]
    }
}

//! The scripts: every decision about jobs, leases and nodes is one of them.

use redis::{Cmd, Pipeline};

use super::options::RedisOptions;
use super::record::JOB_FIELDS;
use crate::clock::micros;
use crate::core::LOST_WORKERS;

/// A century: nothing waits or is kept for longer, and every time stays an exact number in Lua.
const LONGEST: i64 = 100 * 365 * 86_400 * 1_000_000;

/// A lifetime in microseconds, as the scripts take it.
pub(super) fn lifetime(duration: std::time::Duration) -> i64 {
    micros(duration).min(LONGEST)
}

/// How many values a job of `submit.lua` has.
const SUBMIT_ARGS: usize = 15;

macro_rules! scripts {
    ($($name:ident = $guard:literal [$($part:literal),+]),+ $(,)?) => {
        /// Which script.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(super) enum Script { $($name),+ }

        const ALL: &[(&str, &[&str])] = &[$(($guard, &[$(include_str!(concat!("scripts/", $part, ".lua"))),+])),+];
    };
}

scripts! {
    Submit = "jobs!" ["common", "devices", "submit"],
    Claim = "jobs" ["common", "devices", "jobs", "start", "claim"],
    ClaimFifo = "jobs" ["common", "devices", "jobs", "start", "claim_fifo"],
    Withdraw = "jobs" ["common", "devices", "jobs", "withdraw"],
    Survey = "nodes" ["common", "survey"],
    Assign = "jobs" ["common", "devices", "assign"],
    Unclaim = "jobs" ["common", "devices", "jobs", "unclaim"],
    Work = "jobs" ["common", "devices", "jobs", "outbox", "ends", "start", "work"],
    Retry = "jobs" ["common", "devices", "jobs", "outbox", "ends", "retry"],
    Cancel = "jobs" ["common", "devices", "jobs", "outbox", "ends", "cancel"],
    Tick = "jobs" ["common", "clock", "devices", "jobs", "outbox", "ends", "balance", "tick"],
    Drop = "jobs" ["common", "devices", "jobs", "outbox", "ends", "drop"],
    Join = "jobs" ["common", "clock", "devices", "jobs", "outbox", "ends", "join"],
    Release = "jobs" ["common", "devices", "jobs", "outbox", "ends", "release"],
    Renew = "nodes" ["common", "clock", "renew"],
    Acquire = "nodes" ["common", "devices", "acquire"],
    Suspend = "jobs" ["common", "devices", "suspend"],
    Waiting = "jobs" ["common", "devices", "jobs", "waiting"],
    Look = "nodes" ["common", "clock", "look"],
    Nodes = "nodes" ["common", "nodes"],
    StopWorker = "nodes" ["common", "stop_worker"],
    Deliveries = "jobs" ["common", "outbox", "deliveries"],
    Settle = "jobs" ["common", "devices", "jobs", "outbox", "ends", "settle"],
    Health = "jobs!" ["common", "health"],
}

/// The guard of scripts that need memory.
const REFUSED_WHEN_FULL: &[&str] = &["jobs!"];

struct Compiled {
    code: String,
    sha: String,
    key: String,
}

/// The scripts of one engine, with its names and bounds written into them.
pub(super) struct Scripts {
    all: Vec<Compiled>,
}

fn quoted(text: &str) -> String {
    let mut out = String::from("'");
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.:{}".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("\\{byte:03}"));
        }
    }
    out.push('\'');
    out
}

impl Scripts {
    pub(super) fn new(options: &RedisOptions) -> Self {
        let fields: Vec<String> = JOB_FIELDS.iter().map(|field| format!("'{field}'")).collect();
        let bound = |number: usize| number.min(1 << 50);
        let head = format!(
            "\nlocal P, HOST_MAP, NODE_MAP = {}, {}, {}\n\
             local PLACED, LEASE, CLOCK_GAP, MAX_QUEUED, MAX_DEVICE, MAX_OUTBOX = {}, {}, {}, {}, {}, {}\n\
             local AUDIT, CANCELED, LOST_WORKERS, ARGS = {}, {}, {LOST_WORKERS}, {SUBMIT_ARGS}\n\
             local TRIM, EVENTS, EVENT_MARKS = '{}', '{}', {}\n\
             local RECORD = {{ {} }}\n",
            quoted(&options.prefix),
            quoted(&options.host_to_node_map),
            quoted(&options.node_info_map),
            options.placer.is_some(),
            lifetime(options.lease),
            lifetime(options.look_every() * 3 / 2),
            bound(options.max_queued),
            bound(options.max_queued_per_device),
            bound(options.max_outbox),
            lifetime(options.audit_retention),
            lifetime(options.canceled_ttl),
            // Cutting in whole blocks is cheaper, where a hundred more do no harm.
            if options.events.events >= 1000 { '~' } else { '=' },
            options.events.events.max(1),
            (options.events.bytes >> 20).max(1),
            fields.join(", "),
        );
        let compile = |(guard, parts): &(&str, &[&str])| {
            // Where memory has run out nothing new is taken in, but what is there goes on and ends.
            let flags = if REFUSED_WHEN_FULL.contains(guard) { "" } else { " flags=allow-oom" };
            let key = guard.trim_end_matches('!');
            let code = format!("#!lua{flags}{head}{}", parts.concat());
            let sha = redis::Script::new(&code).get_hash().to_owned();
            Compiled { code, sha, key: format!("{}{key}", options.prefix) }
        };
        Self { all: ALL.iter().map(compile).collect() }
    }

    /// Makes the server know them all.
    pub(super) fn load(&self) -> Pipeline {
        let mut pipe = Pipeline::with_capacity(self.all.len());
        for script in &self.all {
            pipe.cmd("SCRIPT").arg("LOAD").arg(&script.code);
        }
        pipe
    }

    /// A call, to be followed by the script's own arguments.
    pub(super) fn call(&self, script: Script, ahead: i64, limit: i64) -> Cmd {
        let mut command = redis::cmd("EVALSHA");
        if let Some(compiled) = self.all.get(script as usize) {
            command.arg(&compiled.sha).arg(1).arg(&compiled.key).arg(ahead).arg(limit);
        }
        command
    }
}

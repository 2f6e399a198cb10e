//! The engine for many machines: Redis (or Valkey) holds everything, and every decision is one
//! script that runs there alone.
//!
//! Any number of processes open the same store. Each keeps three connections however many devices
//! it owns: one for commands ([`link`]), one that is told things ([`listen`]), one that reads events
//! while somebody watches ([`tail`]). What a worker notes and how its jobs end goes through one
//! ordered [`lane`], so that a note is always there before the end that it belongs to. There is no
//! leader: whoever lives does what falls due ([`due`]).

mod claims;
mod due;
mod ended;
mod engine;
mod examine;
mod follow;
mod lane;
mod link;
mod list;
mod listen;
mod nodes;
mod options;
mod outbox;
mod place;
mod record;
mod scripts;
mod submit;
mod tail;
mod take;
mod workers;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::api::{NodeName, QueueError};
use crate::seal::Keyring;
use claims::Claims;
use due::Due;
use ended::Waiters;
use lane::Lane;
use link::{Link, Target, Trouble};
use listen::Listener;
use nodes::LocalNode;
use record::{number, text};
use scripts::{Script, Scripts};
use tail::Tail;

pub use examine::{Finding, Severity};
pub use options::{RedisOpenError, RedisOptions, RedisSentinel, RedisTls};

/// The engine on Redis. Dropping it ends it at once; [`crate::Queue::close`] first delivers what it
/// holds.
pub struct Redis {
    shared: Arc<Shared>,
}

/// What calls and tasks share.
struct Shared {
    options: RedisOptions,
    keys: Keyring,
    scripts: Arc<Scripts>,
    link: Arc<Link>,
    lane: Lane,
    listener: Listener,
    tail: Tail,
    /// The nodes that joined through this process.
    nodes: Mutex<HashMap<NodeName, LocalNode>>,
    claims: Claims,
    /// The workers written down by this process, and their nodes.
    workers: Mutex<HashMap<String, NodeName>>,
    /// Who waits for a job's end.
    waiters: Mutex<Waiters>,
    due: Due,
    /// The server's time less this process's steady time, microseconds, and when that was seen.
    offset: Mutex<(i64, i64)>,
    /// The latest event that a call of this process made.
    last_event: AtomicU64,
    tasks: Mutex<JoinSet<()>>,
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.end();
    }
}

impl Redis {
    /// Opens the store, after looking whether the server is fit for it, and settles what an earlier
    /// process of the same instance left running (promise 6).
    ///
    /// # Errors
    /// When the server cannot be reached or is not fit, or the options contradict themselves.
    pub async fn open(mut options: RedisOptions) -> Result<Arc<Self>, RedisOpenError> {
        // Within, the prefix is what keys really begin with, with the tag that holds them together.
        options.prefix = if options.prefix.contains('{') {
            format!("{}:", options.prefix)
        } else {
            format!("{}:{{0}}:", options.prefix)
        };
        if options.keys.is_empty() {
            return Err(RedisOpenError::Options(
                "a sealing key is needed that all processes share (redis.seal_key)".into(),
            ));
        }
        let target = Target::new(&options)?;
        let address = target.address();
        let cluster = target.is_cluster().await;
        if cluster.map_err(|why| RedisOpenError::Unreachable { address: address.clone(), why })? {
            // There all keys of a script have to lie in one slot, those with given names too.
            for name in [&mut options.host_to_node_map, &mut options.node_info_map] {
                *name = format!("{}{name}", options.prefix);
            }
        }
        let scripts = Arc::new(Scripts::new(&options));
        let link = Arc::new(Link::open(target, Arc::clone(&scripts)).await?);
        let (lane, lane_inbox) = Lane::new();
        let shared = Arc::new(Shared {
            keys: Keyring::shared(&options.keys),
            scripts,
            link,
            lane,
            listener: Listener::default(),
            tail: Tail::new(options.events),
            nodes: Mutex::default(),
            claims: Claims::default(),
            workers: Mutex::default(),
            waiters: Mutex::default(),
            due: Due::default(),
            offset: Mutex::new((i64::MIN, i64::MIN)),
            last_event: AtomicU64::new(0),
            tasks: Mutex::new(JoinSet::new()),
            options,
        });
        let unreachable = |error: QueueError| RedisOpenError::Unreachable {
            address: address.clone(),
            why: error.to_string(),
        };
        // The first answer also tells the server's time.
        let until = Instant::now() + shared.options.deadline;
        shared.once(shared.scripts.call(Script::Look, 0, 0), until).await.map_err(|trouble| {
            RedisOpenError::Unreachable { address: address.clone(), why: trouble.to_string() }
        })?;
        shared.check(&address).await?;
        shared.open_tail().await.map_err(&unreachable)?;
        shared.take_over().await.map_err(&unreachable)?;
        shared.spawn(Arc::clone(&shared.link).keep());
        shared.spawn(lane::run(Arc::clone(&shared), lane_inbox));
        shared.spawn(due::run(Arc::clone(&shared)));
        shared.spawn(listen::run(Arc::clone(&shared)));
        // From here on dropping it ends its tasks.
        let engine = Arc::new(Self { shared: Arc::clone(&shared) });
        if !shared.listener.hears(shared.options.deadline).await {
            let why = "it answers, but notifications (SUBSCRIBE) do not come up".to_owned();
            return Err(RedisOpenError::Unreachable { address, why });
        }
        Ok(engine)
    }

    /// Ends as a killed process does: nothing more is sent. For tests.
    pub async fn crash(&self) {
        self.end();
        let mut tasks = std::mem::take(&mut *self.shared.tasks.lock());
        tasks.shutdown().await;
    }

    fn end(&self) {
        self.shared.link.close();
        self.shared.tail.close();
        self.shared.tasks.lock().abort_all();
    }
}

/// How long the best knowledge of the server's clock is trusted, and by how much no answer is ever
/// late: a clock that is further behind was set. Microseconds.
const OFFSET_KEPT: i64 = 10_000_000;

/// Bytes a second that even a bad line carries: big requests get more time.
const SLOWEST: usize = 4 << 20;

/// A script's answer without what every answer begins with.
struct Reply(Vec<Value>);

impl Reply {
    fn value(&self, at: usize) -> &Value {
        self.0.get(at).unwrap_or(&Value::Nil)
    }

    fn text(&self, at: usize) -> &str {
        text(self.value(at)).unwrap_or_default()
    }

    fn number(&self, at: usize) -> i64 {
        number(self.value(at)).unwrap_or(0)
    }

    fn items(&self, at: usize) -> &[Value] {
        record::items(self.value(at))
    }
}

impl Shared {
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock();
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Steady time of this process, microseconds; tests push it forward.
    fn steady(&self) -> i64 {
        self.options.clock.now().steady
    }

    /// The time that the store goes by, as far as it is known here.
    fn store_now(&self) -> i64 {
        self.offset.lock().0.saturating_add(self.steady())
    }

    /// The server's time after which nobody waits for an answer any more.
    fn limit(&self, until: Instant) -> i64 {
        let left = i64::try_from(until.saturating_duration_since(Instant::now()).as_micros()).unwrap_or(0);
        self.store_now().saturating_sub(self.options.clock.ahead()).saturating_add(left)
    }

    fn until(&self) -> Instant {
        Instant::now() + self.options.deadline
    }

    /// The same for a request of so many bytes.
    fn until_for(&self, bytes: usize) -> Instant {
        self.until() + std::time::Duration::from_secs((bytes / SLOWEST) as u64)
    }

    /// A key of the store.
    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.options.prefix)
    }

    /// Takes the server's time as an answer of now tells it.
    fn hear_time(&self, real: i64) {
        let steady = self.steady() - self.options.clock.ahead();
        // The answer that was quickest lately tells the server's time best.
        let (fresh, mut known) = (real.saturating_sub(steady), self.offset.lock());
        let set_back = known.0.saturating_sub(fresh) > OFFSET_KEPT;
        if fresh >= known.0 || set_back || steady.saturating_sub(known.1) > OFFSET_KEPT {
            *known = (fresh, steady);
        }
    }

    /// Takes what every script's answer begins with.
    fn hear(&self, answer: Value) -> Result<Reply, Trouble> {
        let answer = link::sound(answer).inspect_err(|trouble| {
            // Too late by the server's clock: was it set? Then the next one is in time.
            if let Trouble::Later(text) = trouble
                && let Some(time) = text.strip_prefix(link::LATE)
                && let Some(real) = time.split_whitespace().next().and_then(|time| time.parse().ok())
            {
                self.hear_time(real);
            }
        })?;
        let Value::Array(mut values) = answer else {
            return Err(Trouble::Wrong("a script answered something else than a list".into()));
        };
        if values.len() < 3 {
            return Err(Trouble::Wrong("a script answered too little".into()));
        }
        let rest = values.split_off(3);
        if let Some(real) = values.first().and_then(number) {
            self.hear_time(real);
            self.due.learn(real, values.get(1).and_then(number));
        }
        if let Some(event) = values.get(2).and_then(number).and_then(|id| u64::try_from(id).ok()) {
            self.last_event.fetch_max(event, Ordering::SeqCst);
        }
        Ok(Reply(rest))
    }

    /// One call of a script, sent once.
    async fn once(&self, call: Cmd, until: Instant) -> Result<Reply, Trouble> {
        let mut pipe = redis::Pipeline::with_capacity(1);
        pipe.add_command(call);
        let answer = self.link.send(&pipe, until).await?.into_iter().next().unwrap_or_default();
        self.hear(answer)
    }

    /// A call of a script that may be done twice without harm: sent again while there is time.
    async fn ask(&self, script: Script, arguments: impl Fn(&mut Cmd)) -> Result<Reply, QueueError> {
        let until = self.until();
        let mut pause = std::time::Duration::from_millis(20);
        loop {
            let mut call = self.scripts.call(script, self.options.clock.ahead(), self.limit(until));
            arguments(&mut call);
            match self.once(call, until).await {
                Ok(reply) => return Ok(reply),
                Err(Trouble::Lost(_) | Trouble::Later(_)) if Instant::now() + pause < until => {
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
                Err(trouble) => return Err(unavailable(trouble)),
            }
        }
    }
}

/// What a caller is told.
fn unavailable(trouble: Trouble) -> QueueError {
    match trouble {
        Trouble::Closed => QueueError::Closed,
        Trouble::Lost(why) | Trouble::Later(why) | Trouble::Refused(why) => QueueError::Unavailable(why),
        Trouble::Wrong(why) => {
            tracing::error!(why, "Redis calls a request wrong");
            QueueError::Unavailable(why)
        }
    }
}

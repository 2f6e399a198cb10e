//! What goes wrong, and when: by the seed.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::fleet::{Engine, Fleet, LEASE};
use super::history::History;
use super::proxy::Cable;
use super::random::Random;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    KillNode,
    FreezeNode,
    KillController,
    KillRedis,
    FreezeRedis,
    CutCable,
    SwallowingCable,
    DuplicateNode,
    RedisClock,
    NodeClock,
}

/// The faults that an engine's fleet can suffer.
pub fn faults(engine: Engine) -> &'static [Fault] {
    use Fault::*;
    match engine {
        Engine::Embedded => &[KillNode, KillNode, FreezeNode],
        Engine::Redis(_) => &[
            FreezeNode,
            FreezeNode,
            SwallowingCable,
            KillNode,
            KillNode,
            FreezeNode,
            KillController,
            KillRedis,
            FreezeRedis,
            CutCable,
            SwallowingCable,
            DuplicateNode,
            RedisClock,
            NodeClock,
        ],
    }
}

/// Injects faults one after the other, sometimes two at a time, until `until`. Every fault of the
/// list comes at least once when there is time.
pub async fn run(fleet: Arc<Fleet>, history: Arc<History>, mut random: Random, until: Instant) {
    // `NETPULSE_FAULTS=RedisClock,KillNode`: only these.
    let only = std::env::var("NETPULSE_FAULTS").ok();
    let wanted = |fault: &&Fault| {
        only.as_ref().is_none_or(|only| only.split(',').any(|name| name == format!("{fault:?}")))
    };
    let all: Vec<Fault> = faults(fleet.engine).iter().filter(wanted).copied().collect();
    assert!(!all.is_empty(), "NETPULSE_FAULTS names none of {:?}", faults(fleet.engine));
    let mut deck: Vec<Fault> = Vec::new();
    let mut deal = |random: &mut Random| {
        if deck.is_empty() {
            deck.clone_from(&all);
        }
        let at = usize::try_from(random.range(0, deck.len() as u64)).unwrap();
        deck.swap_remove(at)
    };
    while Instant::now() < until {
        tokio::time::sleep(random.millis(300, 1800)).await;
        let (first, second) = (deal(&mut random), random.percent(25).then(|| deal(&mut random)));
        let alone = [Some(first), second].contains(&Some(Fault::DuplicateNode));
        let one = inject(&fleet, &history, first, random.next());
        match second {
            // That a name is taken can only be told while its node is left alone.
            Some(second) if !alone => {
                let other = inject(&fleet, &history, second, random.next());
                tokio::join!(one, other);
            }
            Some(second) => {
                one.await;
                inject(&fleet, &history, second, random.next()).await;
            }
            None => one.await,
        }
    }
}

async fn inject(fleet: &Fleet, history: &History, fault: Fault, seed: u64) {
    let mut random = Random::new(seed);
    let (node, cable) = random.pick(&fleet.nodes);
    let name = node.lock().name.clone();
    let lease = Duration::from_secs(LEASE);
    match fault {
        Fault::KillNode => {
            let pause = random.millis(0, 2500);
            history.note(format!("kill -9 {name}, back after {pause:?}"));
            node.lock().kill();
            tokio::time::sleep(pause).await;
            node.lock().launch();
        }
        Fault::FreezeNode => {
            let pause = lease + random.millis(500, 3000);
            history.note(format!("freeze {name} for {pause:?}"));
            node.lock().signal("-STOP");
            tokio::time::sleep(pause).await;
            node.lock().signal("-CONT");
            history.note(format!("thawed {name}"));
        }
        Fault::KillController => {
            let (controller, _) = random.pick(&fleet.controllers);
            let pause = random.millis(0, 1500);
            history.note(format!("kill -9 {}, back after {pause:?}", controller.lock().name));
            controller.lock().kill();
            tokio::time::sleep(pause).await;
            controller.lock().launch();
        }
        Fault::KillRedis => {
            let Some(redis) = &fleet.redis else { return };
            let pause = random.millis(0, 2500);
            history.note(format!("kill -9 redis, back after {pause:?}"));
            redis.lock().kill();
            history.redis_killed();
            tokio::time::sleep(pause).await;
            redis.lock().launch();
        }
        Fault::FreezeRedis => {
            let Some(redis) = &fleet.redis else { return };
            let pause = random.millis(500, 5000);
            history.note(format!("freeze redis for {pause:?}"));
            redis.lock().signal("-STOP");
            tokio::time::sleep(pause).await;
            redis.lock().signal("-CONT");
            history.note("thawed redis".into());
        }
        Fault::CutCable | Fault::SwallowingCable => {
            let pause = random.millis(500, 6000);
            let state = if fault == Fault::CutCable { Cable::Cut } else { Cable::Swallows };
            history.note(format!("{state:?} cable of {name} for {pause:?}"));
            cable.set(state);
            tokio::time::sleep(pause).await;
            cable.set(Cable::Whole);
            history.note(format!("whole cable of {name}"));
        }
        Fault::RedisClock | Fault::NodeClock => {
            let (whose, clock) = match fault {
                Fault::RedisClock => ("redis", &fleet.redis_clock),
                _ => ("node-c", &fleet.node_clock),
            };
            // Far beyond every lease, and within what a job may wait.
            let (by, pause) = (Duration::from_secs(600), random.millis(500, 5000));
            let word = if random.percent(50) {
                clock.fast(by);
                "forward"
            } else {
                clock.slow(by);
                "back"
            };
            history.note(format!("set the clock of {whose} {by:?} {word} for {pause:?}"));
            tokio::time::sleep(pause).await;
            clock.right();
            history.note(format!("the clock of {whose} is right again"));
        }
        Fault::DuplicateNode => {
            history.note("a second node of the first one's name".into());
            if let Err(why) = fleet.duplicate_node().await {
                history.wrong(why);
            }
        }
    }
}

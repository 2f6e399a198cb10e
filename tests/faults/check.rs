//! The judgement: the devices' own journal against what was accepted.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use netpulse_simulator::{Kind, Running};
use serde_json::Value;

use super::fleet::Engine;
use super::history::History;
use super::load::{Asked, Clients, Sent};
use crate::receiver::Receiver;

/// Longest that accepted jobs may take to end once nothing goes wrong any more.
const SETTLED: Duration = Duration::from_secs(90);
/// Longest that webhooks may take after that: a courier that was killed had a hold.
const TOLD: Duration = Duration::from_secs(60);
/// With `appendfsync everysec` what Redis had not yet written when it was killed may be gone: at
/// most what was acknowledged within this before the kill (Redis postpones a write for at most two
/// seconds while a slow fsync runs).
const UNWRITTEN: Duration = Duration::from_secs(3);

/// Counts, for the eye.
#[derive(Debug, Default)]
pub struct Summary {
    pub jobs: usize,
    pub outcomes: BTreeMap<String, usize>,
    pub webhooks: usize,
    pub forgotten: usize,
}

pub async fn check(
    engine: Engine,
    clients: &Clients,
    running: &Running,
    receiver: &Receiver,
    history: &History,
) -> Summary {
    let sent: Vec<Sent> = clients.sent.lock().clone();
    let mut summary = Summary { jobs: sent.len(), ..Summary::default() };
    let kills = if engine == Engine::Redis("everysec") { history.kills() } else { Vec::new() };
    // What may be gone: a kill came between its first sending and a moment after its answer.
    let excused = |sent: &Sent| {
        let answered = sent.answered.unwrap_or(sent.first);
        kills.iter().any(|kill| *kill >= sent.first && *kill <= answered + UNWRITTEN)
    };
    let until = Instant::now() + SETTLED;
    let mut ended: HashMap<usize, Value> = HashMap::new();
    for one in &sent {
        if one.ids.is_empty() {
            history.wrong(format!("{} was never answered", one.key));
        }
        if one.ids.len() > 1 && !excused(one) {
            history.wrong(format!("{} became several jobs: {:?} (promise 8)", one.key, one.ids));
        }
        for id in &one.ids {
            match clients.job(id, until).await {
                Some(job) => {
                    drop(ended.insert(one.n, job));
                }
                None if excused(one) => summary.forgotten += 1,
                None => history.wrong(format!("{} was accepted as {id} and is lost (promise 1)", one.key)),
            }
        }
    }
    for (n, job) in &ended {
        let status = job["status"].as_str().unwrap_or_default();
        let outcome = job["result"]["outcome"].as_str();
        let word = outcome.map_or_else(|| status.to_owned(), |outcome| format!("{status}, {outcome}"));
        *summary.outcomes.entry(word).or_default() += 1;
        if !["finished", "failed", "canceled"].contains(&status) {
            history.wrong(format!("request-{n} was accepted and has not ended: {job} (promise 1)"));
        } else if job["result"].is_null() {
            history.wrong(format!("request-{n} ended without a result (promise 5)"));
        }
    }
    let journal = journal(running);
    for (device, lines) in &journal {
        let mine: Vec<&Sent> = sent.iter().filter(|one| one.device == *device).collect();
        changes(&mine, &ended, lines, history);
    }
    if running.journal().dropped() > 0 {
        history.wrong("the journal is not whole".into());
    }
    webhooks(&sent, &ended, receiver, history, &mut summary).await;
    summary
}

/// The lines that each device received, with their place in the journal.
fn journal(running: &Running) -> BTreeMap<usize, Vec<(u64, String)>> {
    let mut lines: BTreeMap<usize, Vec<(u64, String)>> =
        (0..running.devices().len()).map(|device| (device, Vec::new())).collect();
    for entry in running.journal().entries() {
        if matches!(entry.kind, Kind::Line) {
            lines.entry(entry.device as usize).or_default().push((entry.seq, entry.line.trim().to_owned()));
        }
    }
    lines
}

/// One device: each line at most once, in order, one writer at a time, and outcomes that are true.
fn changes(mine: &[&Sent], ended: &HashMap<usize, Value>, lines: &[(u64, String)], history: &History) {
    // The spans of the changes, in the order of acceptance.
    let mut spans: Vec<(usize, u64, u64)> = Vec::new();
    for one in mine {
        let Asked::Change(asked) = &one.asked else { continue };
        let mut received = Vec::new();
        for line in asked {
            let places: Vec<u64> =
                lines.iter().filter(|(_, text)| text == line).map(|(seq, _)| *seq).collect();
            if places.len() > 1 {
                history.wrong(format!("`{line}` reached its device {} times (promise 6)", places.len()));
            }
            received.push(places.first().copied());
        }
        let places: Vec<u64> = received.iter().flatten().copied().collect();
        if !places.is_sorted() {
            history.wrong(format!("the lines of {} came out of order: {received:?}", one.key));
        }
        if let (Some(first), Some(last)) = (places.iter().min(), places.iter().max()) {
            spans.push((one.n, *first, *last));
        }
        if let Some(job) = ended.get(&one.n) {
            let all: Vec<bool> = received.iter().map(Option::is_some).collect();
            if let Err(why) = agrees(job, asked, &all) {
                history.wrong(format!("{}: {why}; received {all:?}: {job} (promise 5)", one.key));
            }
        }
    }
    for pair in spans.windows(2) {
        let ((a, a_first, a_last), (b, b_first, b_last)) = (pair[0], pair[1]);
        if b_first < a_first {
            history
                .wrong(format!("request-{b} was accepted after request-{a} and sent before it (promise 3)"));
        } else if b_first < a_last || b_last < a_last {
            history.wrong(format!("request-{a} and request-{b} wrote at once (promise 2)"));
        }
    }
    for (n, first, last) in spans {
        let between = lines.iter().filter(|(seq, text)| text == "show clock" && (first..last).contains(seq));
        if let Some((seq, _)) = between.into_iter().next() {
            history.wrong(format!("a query overlapped with request-{n} at entry {seq} (promise 3)"));
        }
    }
}

/// Whether a change's end tells what its device received.
fn agrees(job: &Value, asked: &[String], received: &[bool]) -> Result<(), String> {
    let (status, outcome) = (job["status"].as_str(), job["result"]["outcome"].as_str());
    let empty = Vec::new();
    let results = job["result"]["retval"].as_array().unwrap_or(&empty);
    for result in results.iter().filter(|result| result["exit_status"] == 0) {
        let line = result["command"].as_str().unwrap_or_default();
        if asked.iter().position(|asked| asked == line).is_some_and(|at| !received[at]) {
            return Err(format!("`{line}` is told as applied and never reached the device"));
        }
    }
    match (outcome, status) {
        (Some("applied"), Some("finished")) if received.iter().all(|line| *line) => Ok(()),
        (Some("applied"), _) => Err("told as applied".into()),
        (_, Some("finished")) => Err("finished, and not applied".into()),
        (Some("not_applied"), _) if received.iter().any(|line| *line) => Err("told as not applied".into()),
        (Some("not_applied" | "partial" | "unknown"), _) => Ok(()),
        other => Err(format!("no outcome: {other:?}")),
    }
}

/// Who asked to be told has been told, of the end that everybody sees.
async fn webhooks(
    sent: &[Sent],
    ended: &HashMap<usize, Value>,
    receiver: &Receiver,
    history: &History,
    summary: &mut Summary,
) {
    let expected: Vec<(&Sent, &Value)> =
        sent.iter().filter(|one| one.hook).filter_map(|one| Some((one, ended.get(&one.n)?))).collect();
    let told = |calls: &[crate::receiver::Call]| {
        let mut told: HashMap<String, Vec<Value>> = HashMap::new();
        for call in calls.iter().filter(|call| call.arrived) {
            let message = call.json();
            told.entry(message["id"].as_str().unwrap_or_default().to_owned()).or_default().push(message);
        }
        told
    };
    let until = Instant::now() + TOLD;
    let told = loop {
        let told = told(&receiver.calls());
        let missing =
            |(_, job): &&(&Sent, &Value)| !told.contains_key(job["id"].as_str().unwrap_or_default());
        let missing = expected.iter().filter(missing).count();
        if missing == 0 || Instant::now() > until {
            break told;
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    };
    for (one, job) in expected {
        let messages =
            told.get(job["id"].as_str().unwrap_or_default()).map(Vec::as_slice).unwrap_or_default();
        if messages.is_empty() {
            history.wrong(format!("nobody was told of the end of {} ({})", one.key, job["id"]));
        }
        for message in messages {
            if message["status"] != job["status"] || message["result"]["outcome"] != job["result"]["outcome"]
            {
                history.wrong(format!("the webhook of {} says {message}, the job {job}", one.key));
            }
        }
        summary.webhooks += usize::from(!messages.is_empty());
    }
}

/// The judgement itself: each broken promise is seen.
mod seen {
    use serde_json::json;

    use super::*;

    fn change(n: usize) -> Sent {
        let lines = vec![format!("interface Loopback{n}"), format!("description mark-{n}-1")];
        let now = Instant::now();
        Sent {
            n,
            device: 0,
            asked: Asked::Change(lines),
            key: format!("request-{n}"),
            hook: false,
            ids: vec![n.to_string()],
            first: now,
            answered: Some(now),
        }
    }

    fn end(status: &str, outcome: &str) -> Value {
        json!({"status": status, "result": {"outcome": outcome, "retval": null}})
    }

    /// What is found wrong with two changes that the device received like this.
    fn found(lines: &[&str], first: Value, second: Value) -> String {
        let (one, two) = (change(1), change(2));
        let ended = HashMap::from([(1, first), (2, second)]);
        let lines: Vec<(u64, String)> =
            lines.iter().enumerate().map(|(at, line)| (at as u64, (*line).to_owned())).collect();
        let history = History::new();
        changes(&[&one, &two], &ended, &lines, &history);
        history.mistakes().join("\n")
    }

    const ONE: [&str; 2] = ["interface Loopback1", "description mark-1-1"];
    const TWO: [&str; 2] = ["interface Loopback2", "description mark-2-1"];

    #[test]
    fn broken_promises_are_seen_and_kept_ones_are_not() {
        let applied = || end("finished", "applied");
        let lines = [ONE[0], ONE[1], "show clock", TWO[0], TWO[1]];
        assert_eq!(found(&lines, applied(), applied()), "");
        assert_eq!(found(&[ONE[0], TWO[0], TWO[1]], end("failed", "unknown"), applied()), "");
        assert_eq!(found(&[TWO[0], TWO[1]], end("canceled", "not_applied"), applied()), "");
        for (lines, first, wanted) in [
            (vec![ONE[0], ONE[1], ONE[1], TWO[0], TWO[1]], applied(), "2 times (promise 6)"),
            (vec![TWO[0], TWO[1], ONE[0], ONE[1]], applied(), "sent before it (promise 3)"),
            (vec![ONE[0], TWO[0], ONE[1], TWO[1]], applied(), "wrote at once (promise 2)"),
            (vec![ONE[0], "show clock", ONE[1], TWO[0], TWO[1]], applied(), "a query overlapped"),
            (vec![ONE[1], ONE[0], TWO[0], TWO[1]], applied(), "out of order"),
            (vec![ONE[0], TWO[0], TWO[1]], applied(), "told as applied"),
            (vec![ONE[0], TWO[0], TWO[1]], end("failed", "not_applied"), "told as not applied"),
            (vec![ONE[0], ONE[1], TWO[0], TWO[1]], end("finished", "unknown"), "finished, and not applied"),
            (vec![ONE[0], ONE[1], TWO[0], TWO[1]], json!({"status": "failed", "result": {}}), "no outcome"),
        ] {
            let told = found(&lines, first, applied());
            assert!(told.contains(wanted), "{lines:?}: {told}");
        }
        let partial = json!({"status": "failed", "result": {"outcome": "partial", "retval": [
            {"command": ONE[0], "exit_status": 0}, {"command": ONE[1], "exit_status": 0}]}});
        let told = found(&[ONE[0], TWO[0], TWO[1]], partial, applied());
        assert!(told.contains("never reached the device"), "{told}");
    }
}

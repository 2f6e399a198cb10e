//! Every platform that the simulator plays, driven by the netmiko driver as a job drives it: queries,
//! long outputs through a pager, changes with save and commit, refused lines, new names, faults on
//! the line. What counts is what the device's journal and configurations say.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stderr)]

#[path = "platforms/facts.rs"]
mod facts;

use std::fmt::Write as _;
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use facts::{FACTS, Facts};
use netpulse_driver::connect::ConnectSettings;
use netpulse_driver::netmiko::Netmiko;
use netpulse_model::{ConnectionArgs, ErrorCode, ExecutionRequest, ExecutionResult, JobKind, Outcome};
use netpulse_plugin::{Driver, DriverSession, Report, Run, Watch, Work};
use netpulse_session::platform::schema::Verified;
use netpulse_session::platform::{Found, Platform, Registry, TransportKind};
use netpulse_session::transport::hostkeys::HostKeys;
use netpulse_simulator::{Device, Entry, Faults, Kind, Library, Plan, Running, Simulator};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What went wrong, in words.
type Checked = Result<(), String>;

macro_rules! check {
    ($holds:expr, $($why:tt)+) => {
        if !$holds {
            return Err(format!($($why)+));
        }
    };
}

struct Nobody;

impl Watch for Nobody {
    fn sending(&self, _index: usize, _total: usize, _line: &str) -> bool {
        true
    }
    fn answered(&self, _index: usize, _total: usize, _result: &ExecutionResult) {}
}

fn registry() -> Arc<Registry> {
    Registry::builtin().unwrap()
}

fn driver() -> Netmiko {
    Netmiko::new(ConnectSettings::new(HostKeys::in_memory()), registry())
}

fn find(name: &str) -> Found {
    registry().find(name).unwrap()
}

/// One session to one device of a simulator of its own.
struct Bench {
    facts: &'static Facts,
    platform: Arc<Platform>,
    running: Running,
    args: ConnectionArgs,
    session: Box<dyn DriverSession>,
    /// The mode of the first command.
    base: String,
}

impl Bench {
    /// A device of the facts' persona. `commands` come on top of the persona's own (YAML list items).
    async fn open(
        facts: &'static Facts,
        transport: TransportKind,
        faults: Faults,
        commands: &str,
    ) -> Result<Bench, String> {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "like: {0}\nname: bench_{0}\ncommands:\n  - {{ match: simulator-page <n>, modes: '*', table: {{ rows: '{{n}}', \
             line: 'row {{i}} of a table that no page holds' }}, output: '{{table}}' }}\n{commands}",
            facts.name
        );
        std::fs::write(folder.path().join(format!("bench_{}.yaml", facts.name)), text).unwrap();
        let mut plan = Plan::of(&format!("bench_{}", facts.name), 1);
        plan.persona_dir = Some(folder.path().to_owned());
        plan.telnet_port = Some(0);
        plan.faults = faults;
        let running = Simulator::start(plan).map_err(|e| e.to_string())?;
        let (name, at) = match transport {
            TransportKind::Ssh => (facts.name.to_owned(), running.device(0).ssh.unwrap()),
            TransportKind::Telnet => (format!("{}_telnet", facts.name), running.device(0).telnet.unwrap()),
        };
        let args = args(facts, &name, at);
        let session = driver().connect(&args).await.map_err(|e| format!("connect: {e}"))?;
        let mut bench =
            Bench { facts, platform: find(facts.name).platform, running, args, session, base: String::new() };
        bench.ask(json!({"command": "simulator-lines 1"})).await;
        bench.base = bench.last().ok_or("no line was received")?.before;
        Ok(bench)
    }

    fn device(&self) -> &Device {
        self.running.device(0)
    }

    fn request(&self, body: Value) -> ExecutionRequest {
        let mut whole = json!({"driver": "netmiko", "connection_args": self.args.0});
        for (key, value) in body.as_object().unwrap() {
            whole[key] = value.clone();
        }
        ExecutionRequest::read(&whole, 300).unwrap()
    }

    async fn ask(&mut self, body: Value) -> Report {
        let request = self.request(body);
        let items = request.payload().items();
        let work = match request.kind() {
            JobKind::Query => Work::Commands(items),
            JobKind::Modification => Work::Config(items),
        };
        let (cancel, fence) = (CancellationToken::new(), CancellationToken::new());
        self.session.run(Run { request: &request, work, watch: &Nobody, cancel, fence, reused: true }).await
    }

    /// A command's text; an error when the job would have failed.
    async fn text(&mut self, body: Value) -> Result<String, String> {
        let what = body["command"].to_string();
        let report = self.ask(body).await;
        check!(report.error.is_none(), "{what}: {:?}", report.error);
        check!(report.reusable, "{what}: the session is not reusable");
        // Some devices set an empty line in front of their prompt.
        Ok(report.results[0].stdout.as_str().unwrap_or_default().trim_end().to_owned())
    }

    /// The last line received at a prompt.
    fn last(&self) -> Option<Entry> {
        self.running.journal().device(0).into_iter().rev().find(|e| e.kind == Kind::Line)
    }

    /// Whether the device ever received this line.
    fn received(&self, line: &str) -> bool {
        self.running.journal().lines(0).iter().any(|l| l.trim() == line)
    }

    /// The session still serves, exactly, and in the mode it was opened in.
    async fn serves(&mut self, after: &str) -> Checked {
        let text = self
            .text(json!({"command": "simulator-lines 3"}))
            .await
            .map_err(|e| format!("after {after}: {e}"))?;
        check!(text == lines(3), "after {after}: text is {text:?}");
        let mode = self.last().map(|e| e.before).unwrap_or_default();
        check!(
            mode == self.base || self.facts.stays,
            "after {after} the session is in {mode}, not in {}",
            self.base
        );
        Ok(())
    }

    async fn close(mut self) {
        self.session.close().await;
        self.running.stop();
    }
}

fn args(facts: &Facts, name: &str, at: std::net::SocketAddr) -> ConnectionArgs {
    let args = json!({"device_type": name, "host": at.ip().to_string(), "port": at.port(), "username": "admin",
        "password": "admin", "secret": facts.secret});
    ConnectionArgs(args.as_object().unwrap().clone())
}

/// What `simulator-lines` prints.
fn lines(count: usize) -> String {
    let text = "simulated output, never the same twice, never a prompt.";
    let rows: Vec<String> = (1..=count).map(|i| format!("{:<62.62}", format!("{i:>8}: {text}"))).collect();
    rows.join("\n").trim_end().to_owned()
}

/// What `simulator-page` prints.
fn table(count: usize) -> String {
    (1..=count).map(|i| format!("row {i} of a table that no page holds")).collect::<Vec<_>>().join("\n")
}

fn same(seen: &str, wanted: &str) -> Checked {
    if seen == wanted {
        return Ok(());
    }
    let at = seen.lines().zip(wanted.lines()).position(|(a, b)| a != b);
    let near = at.map(|at| format!("line {at}: {:?}", seen.lines().nth(at)));
    Err(format!(
        "{} lines instead of {}, {near:?}, ends {:?}",
        seen.lines().count(),
        wanted.lines().count(),
        seen.lines().last()
    ))
}

/// Runs `test` for all facts at once and fails with everything that was found.
async fn matrix<F, T>(over: impl IntoIterator<Item = &'static Facts>, telnet: bool, test: T)
where
    T: Fn(&'static Facts, TransportKind) -> F,
    F: Future<Output = Checked> + Send + 'static,
{
    let mut tasks = tokio::task::JoinSet::new();
    for facts in over {
        let mut ways = vec![TransportKind::Ssh];
        if telnet && registry().find(&format!("{}_telnet", facts.name)).is_ok() {
            ways.push(TransportKind::Telnet);
        }
        for way in ways {
            let job = test(facts, way);
            tasks.spawn(async move {
                let began = Instant::now();
                let done = tokio::time::timeout(Duration::from_secs(60), job).await;
                let done = done.unwrap_or_else(|_| Err("not done after 60 seconds".to_owned()));
                (facts.name, way, began.elapsed(), done)
            });
        }
    }
    let (mut count, mut wrong, mut slowest) = (0, String::new(), (Duration::ZERO, ""));
    while let Some(done) = tasks.join_next().await {
        count += 1;
        let (name, way, took, done) = done.unwrap();
        slowest = slowest.max((took, name));
        if let Err(why) = done {
            writeln!(wrong, "  {name} over {way:?}: {why}").unwrap();
        }
    }
    eprintln!("{count} walks, the slowest {slowest:?}");
    assert!(wrong.is_empty(), "\n{wrong}");
}

#[test]
fn every_persona_has_its_facts() {
    let library = Library::embedded();
    let mut known: Vec<&str> = FACTS.iter().map(|f| f.name).collect();
    known.sort_unstable();
    assert_eq!(known, library.names());
    for name in known {
        assert_ne!(
            find(name).platform.verified,
            Verified::Facts,
            "{name} is proven here; its file should say so"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_gives_the_text_and_nothing_else() {
    matrix(FACTS, true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        for _ in 0..2 {
            let text = bench.text(json!({"command": facts.show})).await?;
            check!(text.contains(facts.says), "{:?} is not in {text:?}", facts.says);
            check!(!text.contains(facts.show), "the echo is in {text:?}");
            let name = bench.device().hostname();
            let prompt =
                text.lines().find(|l| l.contains(&name) && l.trim_end().ends_with(['>', '#', '$', ']']));
            check!(prompt.is_none(), "a prompt is in the text: {prompt:?}");
            check!(!text.contains(['\r', '\u{1b}', '\u{8}', '\0']), "control characters in {text:?}");
            bench.serves("a query").await?;
        }
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_output_comes_whole() {
    matrix(FACTS, true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        same(&bench.text(json!({"command": "simulator-lines 500"})).await?, &lines(500))?;
        same(&bench.text(json!({"command": "simulator-page 500"})).await?, &table(500))?;
        bench.serves("a long output").await?;
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_keeps_paging_is_answered() {
    matrix(FACTS, true, |facts, way| async move {
        let mut refused = String::new();
        for step in find(facts.name).platform.prepare() {
            writeln!(
                refused,
                "  - {{ match: '{}', modes: '*', output: '% Permission denied', error: true }}",
                step.send
            )
            .unwrap();
        }
        let mut bench = Bench::open(facts, way, Faults::default(), &refused).await?;
        same(&bench.text(json!({"command": "simulator-page 500"})).await?, &table(500))?;
        let keys = bench.running.journal().device(0).iter().filter(|e| e.kind == Kind::Key).count();
        check!(keys > 0 || !facts.pages, "no key was pressed: the pager did not ask");
        bench.serves("the pager").await?;
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_takes_effect_and_is_saved() {
    matrix(FACTS, true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        let saves =
            driver().validate(&bench.request(json!({"config": facts.change, "save": true}))).is_empty();
        let report = bench.ask(json!({"config": facts.change, "save": saves})).await;
        check!(report.error.is_none(), "{:?}: {:?}", report.error, report.results);
        check!(report.outcome == Some(Outcome::Applied), "the outcome is {:?}", report.outcome);
        check!(report.results.len() == facts.change.len(), "{:?}", report.results);
        let config = bench.device().running_config();
        check!(config.contains(facts.holds), "{:?} is not in {config}", facts.holds);
        let startup = bench.device().startup_config();
        check!(!saves || startup.contains(facts.holds), "{:?} was not saved", facts.holds);
        check!(
            !bench.platform.has_candidate() || bench.device().commits() == 1,
            "{} commits",
            bench.device().commits()
        );
        for line in facts.change {
            let times = bench.running.journal().lines(0).iter().filter(|l| l.trim() == *line).count();
            let wanted = facts.change.iter().filter(|l| *l == line).count();
            check!(times == wanted, "`{line}` was received {times} times");
        }
        bench.serves("a change").await?;
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_4_a_refused_line_ends_the_change() {
    matrix(FACTS, true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        let before = bench.device().running_config();
        let lines: Vec<&str> = facts.fine.iter().copied().chain([facts.bad, facts.late]).collect();
        let report = bench.ask(json!({"config": lines})).await;
        let error = report.error.ok_or_else(|| format!("nothing was refused: {:?}", report.results))?;
        check!(error.code == ErrorCode::LineRejected, "{error:?}");
        let mut wanted = vec![0; facts.fine.len()];
        wanted.extend([1, 1]);
        let statuses: Vec<i32> = report.results.iter().map(|r| r.exit_status).collect();
        check!(statuses == wanted, "exit statuses {statuses:?}");
        check!(!bench.received(facts.late), "`{}` was sent all the same", facts.late);
        let after = bench.device().running_config();
        if bench.platform.has_candidate() || facts.held {
            check!(report.outcome == Some(Outcome::NotApplied), "the outcome is {:?}", report.outcome);
            check!(before == after, "the configuration is changed: {after}");
            check!(bench.device().commits() == 0, "{} commits", bench.device().commits());
            check!(
                bench.device().candidate_config().is_none_or(|c| c == before),
                "the candidate is still there"
            );
        } else {
            check!(report.outcome == Some(Outcome::Partial), "the outcome is {:?}", report.outcome);
        }
        bench.serves("a refused line").await?;
        // And the next change is none the worse for it.
        let report = bench.ask(json!({"config": facts.change})).await;
        check!(report.error.is_none() || facts.stays, "the next change: {:?}", report.error);
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn promise_4_a_refused_commit_leaves_nothing() {
    let candidates = FACTS.iter().filter(|f| find(f.name).platform.has_candidate());
    matrix(candidates, true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        let before = bench.device().running_config();
        let report = bench.ask(json!({"config": facts.unfit, "save": true})).await;
        let error = report.error.ok_or("the commit was not refused")?;
        check!(error.code == ErrorCode::CommitFailed, "{error:?}");
        check!(report.outcome == Some(Outcome::NotApplied), "the outcome is {:?}", report.outcome);
        check!(
            bench.device().running_config() == before && bench.device().commits() == 0,
            "something was committed"
        );
        bench.serves("a refused commit").await?;
        let report = bench.ask(json!({"config": facts.change})).await;
        check!(report.error.is_none(), "the next change: {:?}", report.error);
        check!(
            !bench.device().running_config().contains("refuse-commit"),
            "the refused lines were committed later"
        );
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_block_took_over_before_the_refused_line_is_told() {
    matrix(FACTS.iter().filter(|f| f.name == "fortinet"), false, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        let lines = [
            "config system dns",
            "set primary 10.0.0.54",
            "end",
            "config system interface",
            "edit port1",
            "set alias early",
            "bogus 1",
        ];
        let report = bench.ask(json!({"config": lines})).await;
        check!(report.outcome == Some(Outcome::Partial), "the outcome is {:?}", report.outcome);
        let config = bench.device().running_config();
        check!(config.contains("10.0.0.54") && !config.contains("early"), "{config}");
        bench.serves("a refused line").await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_name_does_not_hang() {
    matrix(FACTS.iter().filter(|f| !f.rename.is_empty()), true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        let began = Instant::now();
        let report = bench.ask(json!({"config": facts.rename})).await;
        check!(report.error.is_none(), "{:?}", report.error);
        check!(report.outcome == Some(Outcome::Applied), "the outcome is {:?}", report.outcome);
        check!(bench.device().hostname() == "edge-7", "the name is {}", bench.device().hostname());
        bench.serves("a new name").await?;
        check!(began.elapsed() < Duration::from_secs(20), "it took {:?}", began.elapsed());
        bench.close().await;
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_privileged_mode_leaves_no_trace() {
    let privileged = FACTS.iter().filter(|f| find(f.name).platform.has_enable() && !f.no_enable);
    matrix(privileged, true, |facts, way| async move {
        let mut bench = Bench::open(facts, way, Faults::default(), "").await?;
        let text = bench.text(json!({"command": "simulator-lines 2", "enable_mode": true})).await?;
        check!(text == lines(2), "{text:?}");
        let mode = bench.last().map(|e| e.before).unwrap_or_default();
        check!(mode == facts.privileged, "the command ran in {mode}");
        bench.serves("enable").await?;
        bench.close().await;
        Ok(())
    })
    .await;
}

fn faulty(
    faults: &'static str,
) -> impl Fn(&'static Facts, TransportKind) -> std::pin::Pin<Box<dyn Future<Output = Checked> + Send>> {
    move |facts, way| {
        Box::pin(async move {
            let wrong = Faults::parse(faults).unwrap();
            let mut bench =
                Bench::open(facts, way, wrong.clone(), "").await.map_err(|e| format!("{faults}: {e}"))?;
            // What the device itself put on rows of its own is part of what it said.
            let junk = wrong.junk_every > 0 || wrong.junk_bytes;
            for _ in 0..3 {
                let text = bench
                    .text(json!({"command": "simulator-page 60"}))
                    .await
                    .map_err(|e| format!("{faults}: {e}"))?;
                let kept: Vec<&str> = text.lines().filter(|l| !junk || l.starts_with("row ")).collect();
                same(&kept.join("\n"), &table(60)).map_err(|e| format!("{faults}: {e}"))?;
            }
            let report = bench.ask(json!({"config": facts.change})).await;
            check!(report.error.is_none(), "{faults}: {:?}", report.error);
            check!(
                bench.device().running_config().contains(facts.holds),
                "{faults}: the change is not there"
            );
            bench.close().await;
            Ok(())
        })
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_byte_at_a_time_changes_nothing() {
    matrix(FACTS, true, faulty("split=1")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_text_change_nothing() {
    matrix(FACTS, true, faulty("junk_bytes")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn log_messages_change_nothing() {
    matrix(FACTS, true, faulty("junk_every=2")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_echo_changes_nothing() {
    matrix(FACTS, true, faulty("slow_echo=5ms,latency=40ms,jitter=40ms")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn autodetect_knows_it() {
    matrix(FACTS.iter().filter(|f| !f.detected.is_empty()), true, |facts, way| async move {
        let running = Simulator::start(Plan { telnet_port: Some(0), ..Plan::of(facts.name, 1) })
            .map_err(|e| e.to_string())?;
        let args = match way {
            TransportKind::Ssh => args(facts, "autodetect", running.device(0).ssh.unwrap()),
            TransportKind::Telnet => args(facts, "autodetect_telnet", running.device(0).telnet.unwrap()),
        };
        let seen = driver().test(&args).await.map_err(|e| e.to_string())?;
        check!(seen["device_type"] == facts.detected, "it is taken for {}", seen["device_type"]);
        let rejected = running.journal().device(0).iter().filter(|e| e.kind == Kind::Rejected).count();
        check!(rejected <= 12, "{rejected} commands were tried that it does not know");
        Ok(())
    })
    .await;
}

//! How a plugin starts and ends.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::Method;
use netpulse_model::plugin::{Capabilities, StartForm, header};
use serde_json::Value;

use super::{Report, endpoints, raw};
use crate::guard::descendants;
use crate::host::HostSettings;
use crate::host::start::{Plan, Start};
use crate::host::wire::Location;

/// For a plugin to end when asked (2.8).
const END: Duration = Duration::from_secs(5);

struct Patient<'a> {
    file: &'a Path,
    capabilities: &'a Capabilities,
    settings: Option<&'a Value>,
}

impl Patient<'_> {
    async fn start(&self, form: StartForm, host: &HostSettings) -> Result<Arc<Start>, String> {
        let ledger = Arc::default();
        let plan = Plan {
            path: self.file,
            capabilities: self.capabilities,
            form,
            settings: self.settings,
            ledger: &ledger,
        };
        Start::begin(plan, host).await.map_err(|error| format!("it {}", error.text))
    }
}

/// Starts it in every way and ends it in every way.
pub(super) async fn examine(
    file: &Path,
    capabilities: &Capabilities,
    host: &HostSettings,
    settings: Option<&Value>,
    report: &mut Report,
) {
    let patient = Patient { file, capabilities, settings };
    let Some(form) = forms(&patient, host, report).await else { return };
    let began = Instant::now();
    let start = match patient.start(form, host).await {
        Ok(start) => start,
        Err(why) => return report.failed("2.1", "starts a second time", why),
    };
    report.passed(
        "2.1",
        "starts a second time",
        format!("ready in {:.0} ms", began.elapsed().as_secs_f64() * 1000.0),
    );
    endpoints::examine(&start, capabilities, report).await;
    if start.has_ended() {
        let how = start.how().map(|how| how.to_string()).unwrap_or_default();
        report.failed("3.8", "lives through all requests", format!("it {how}{}", start.voice.last_words()));
    }
    ends(&start, host, report).await;
    terminated(&patient, form, host, report).await;
    idle(&patient, form, host, report).await;
    killed(&patient, form, host, report).await;
    tcp(&patient, form, host, report).await;
}

/// Which start forms it takes; one that works.
async fn forms(patient: &Patient<'_>, host: &HostSettings, report: &mut Report) -> Option<StartForm> {
    let declared = patient.capabilities.start;
    let mut works = None;
    for form in StartForm::ALL {
        let check = format!("starts with `{}`", form.as_str());
        let must =
            declared == Some(form) || (declared.is_none() && works.is_none() && form == StartForm::Config);
        match patient.start(form, host).await {
            Ok(start) => {
                report.passed("2.1", check, "");
                if works.is_none() {
                    let line = if start.said_where {
                        Ok(String::new())
                    } else {
                        Err("no location line came; it was found on the given socket, 0.2 s later".to_owned())
                    };
                    report.should("2.3", "says where it listens", line);
                }
                start.stop().await;
                works = works.or(Some(form));
            }
            Err(why) if must => report.failed("2.1", check, why),
            Err(why) => report.skipped("2.1", check, format!("not this one: {why}")),
        }
    }
    declared.filter(|_| works.is_some()).or(works)
}

async fn ended(start: &Start) -> Result<String, String> {
    let began = Instant::now();
    if tokio::time::timeout(END, start.ended()).await.is_err() {
        start.kill().await;
        return Err(format!("it still ran after {} s and was killed", END.as_secs()));
    }
    let how = start.how().map(|how| how.to_string()).unwrap_or_default();
    if start.how().is_some_and(|how| how.clean()) {
        Ok(format!("after {:.0} ms", began.elapsed().as_secs_f64() * 1000.0))
    } else {
        Err(format!("it {how}; exit status 0 is right"))
    }
}

/// The end that is asked for.
async fn ends(start: &Arc<Start>, host: &HostSettings, report: &mut Report) {
    let below = descendants(std::process::id());
    let asked = start.exchange(Method::POST, "/shutdown", b"{}".to_vec(), Instant::now() + END).await;
    let asked = asked.map(|_| String::new()).map_err(|error| error.reason());
    report.must("2.8", "POST /shutdown answers 200", asked);
    let result = ended(start).await;
    report.must("2.8", "ends with 0 within 5 s of POST /shutdown", result);
    if let Location::Unix(path) = &start.location
        && !host.tcp
    {
        let left =
            if path.exists() { Err(format!("{} is still there", path.display())) } else { Ok(String::new()) };
        report.should("2.8", "removes its socket", left);
    }
    let now = descendants(std::process::id());
    let left: Vec<String> = below.iter().filter(|pid| now.contains(pid)).map(ToString::to_string).collect();
    let left = if left.is_empty() {
        Ok(String::new())
    } else {
        Err(format!("processes {} still live", left.join(", ")))
    };
    report.must("2.9", "leaves no process behind", left);
    let plain = start.voice.plain_lines();
    let lines = if plain == 0 {
        Ok(String::new())
    } else {
        Err(format!("{plain} lines on stderr were no JSON; they are kept as text"))
    };
    report.should("2.10", "logs in JSON lines", lines);
}

async fn terminated(patient: &Patient<'_>, form: StartForm, host: &HostSettings, report: &mut Report) {
    let check = "ends with 0 within 5 s of SIGTERM";
    match patient.start(form, host).await {
        Ok(start) => {
            start.terminate().await;
            let result = ended(&start).await;
            report.must("2.8", check, result);
        }
        Err(why) => report.failed("2.8", check, why),
    }
}

async fn idle(patient: &Patient<'_>, form: StartForm, host: &HostSettings, report: &mut Report) {
    let check = "ends by itself when idle";
    let host = HostSettings { idle_timeout: Duration::from_secs(1), ..host.clone() };
    match patient.start(form, &host).await {
        Ok(start) => {
            let result = ended(&start).await;
            report.should("2.6", check, result);
        }
        Err(why) => report.failed("2.6", check, why),
    }
}

async fn killed(patient: &Patient<'_>, form: StartForm, host: &HostSettings, report: &mut Report) {
    let check = "starts again after it was killed";
    let again = async {
        let first = patient.start(form, host).await?;
        first.kill().await;
        first.ended().await;
        let second = patient.start(form, host).await?;
        second.stop().await;
        Ok(String::new())
    };
    let result = again.await;
    report.must("5.3", check, result);
}

/// Over TCP: the token, and that it stays where it belongs.
async fn tcp(patient: &Patient<'_>, form: StartForm, host: &HostSettings, report: &mut Report) {
    let host = HostSettings { tcp: true, ..host.clone() };
    let start = match patient.start(form, &host).await {
        Ok(start) => start,
        Err(why) => {
            report.should("2.1", "starts over TCP", Err(why));
            return;
        }
    };
    let Location::Tcp(address, token) = &start.location else {
        report.should(
            "2.1",
            "starts over TCP",
            Err("it listens on a Unix socket though told otherwise".to_owned()),
        );
        return start.stop().await;
    };
    report.passed("2.1", "starts over TCP", address.to_string());
    for (check, sent) in [("refuses a request without the token", ""), ("refuses a wrong token", "wrong")] {
        let mut headers = vec![(header::START, start.id.as_str()), (header::REQUEST, "1")];
        if !sent.is_empty() {
            headers.push((header::TOKEN, sent));
        }
        let result = match raw::request(&start.location, "POST", "/shutdown", &headers, "{}").await {
            Ok(answer) if answer.status == 401 => Ok(String::new()),
            Ok(answer) => Err(format!("answered {}; 401 is right", answer.shown())),
            Err(why) => Err(why),
        };
        report.must("2.4", check, result);
    }
    let shown = descendants(std::process::id()).into_iter().find(|pid| {
        ["cmdline", "environ"].iter().any(|file| {
            std::fs::read(format!("/proc/{pid}/{file}"))
                .is_ok_and(|text| String::from_utf8_lossy(&text).contains(token.as_str()))
        })
    });
    let result = shown.map_or_else(
        || Ok(String::new()),
        |pid| Err(format!("process {pid} has the token on its command line or in its environment")),
    );
    report.must("2.4", "keeps the token out of command lines and environments", result);
    start.stop().await;
}

//! `netpulse demo`: a server and twelve simulated devices of six vendors, shown at work.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Args;
use netpulse_client::{Client, Options};
use netpulse_config::Config;
use netpulse_model::JobStatus;
use netpulse_model::api::{BulkResponse, JobInResponse};
use netpulse_simulator::{Plan, Running, Simulator};
use serde_json::{Value, json};

use crate::exit::{Exit, Failure, Outcome};
use crate::server::{Server, Shape};
use crate::stop::Stop;
use crate::ui::{Text, Tone, Ui, plain, seconds, short, tone_of};

/// See it work: a server, simulated devices, a query and a change over REST
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse demo           stays up, with three curl lines to try, until Ctrl-C
  netpulse demo --once    ends by itself; exit code 0 only when everything was right

Nothing leaves this machine: the devices are simulated, each on a loopback port of its own, spoken
to over real SSH. The store is a temporary folder.")]
pub struct DemoArgs {
    /// End after the show
    #[arg(long)]
    once: bool,
    /// Port of the API, 0 for a free one
    #[arg(long, default_value_t = 9000, value_name = "PORT")]
    port: u16,
}

/// A vendor of the show: the platform, what is asked, what is changed, and how that shows.
struct Vendor {
    platform: &'static str,
    ask: &'static str,
    change: &'static [&'static str],
    look: &'static str,
    then: &'static str,
}

const VENDORS: &[Vendor] = &[
    Vendor {
        platform: "cisco_ios",
        ask: "show version",
        change: &["interface Loopback42", "description shown by NetPulse"],
        look: "show running-config",
        then: "shown by NetPulse",
    },
    Vendor {
        platform: "cisco_nxos",
        ask: "show version",
        change: &["interface loopback42", "description shown by NetPulse"],
        look: "show running-config",
        then: "shown by NetPulse",
    },
    Vendor {
        platform: "arista_eos",
        ask: "show version",
        change: &["interface Loopback42", "description shown by NetPulse"],
        look: "show running-config",
        then: "shown by NetPulse",
    },
    Vendor {
        platform: "juniper_junos",
        ask: "show version",
        change: &["set system location building NetPulse"],
        look: "show configuration",
        then: "NetPulse",
    },
    Vendor {
        platform: "huawei",
        ask: "display version",
        change: &["interface LoopBack42", "description shown by NetPulse"],
        look: "display current-configuration",
        then: "shown by NetPulse",
    },
    Vendor { platform: "linux", ask: "uname -a", change: &[], look: "uname -a", then: "Linux" },
];

/// The devices' enable secret.
const ENABLE: &str = "lift-me-up";

/// Devices of each vendor.
const EACH: u32 = 2;

pub fn run(args: &DemoArgs, ui: &Ui) -> Outcome {
    crate::block_on(show(args, ui))
}

async fn show(args: &DemoArgs, ui: &Ui) -> Outcome {
    let mut stop = Stop::listen()?;
    let folder = Temporary::new()?;
    let devices = start_devices()?;
    let key: String = uuid::Uuid::new_v4().simple().to_string();
    let mut config = Config::default();
    config.server.port = args.port;
    config.server.api_key.clone_from(&key);
    config.store.path = folder.0.join("store");
    config.storage.staging = folder.0.join("staging");
    // `netpulse webhook-dev` on this machine may be told.
    config.webhook.allow_private.push("127.0.0.0/8".into());
    let mut server = match Box::pin(Server::start(config.clone(), Shape::All)).await {
        // The show needs no particular port.
        Err(_) if args.port != 0 => {
            config.server.port = 0;
            Box::pin(Server::start(config, Shape::All)).await?
        }
        started => started?,
    };
    ui.line(&format!(
        "{} simulated devices of {} vendors are up, and a server at {}",
        devices.len(),
        VENDORS.len(),
        server.url
    ));
    let right = acts(&server.url, &key, &devices, ui).await;
    let outcome = match right {
        Ok(true) if args.once => Ok(Exit::Ok),
        Ok(true) => {
            invite(&server.url, &key, &devices, ui);
            tokio::select! {
                () = stop.asked() => Ok(Exit::Ok),
                ended = server.ended() => ended.map(|()| Exit::Ok),
            }
        }
        Ok(false) => Ok(Exit::JobFailed),
        Err(failure) => Err(failure),
    };
    server.stop().await;
    outcome
}

/// A device of the show.
struct Shown {
    vendor: &'static Vendor,
    address: SocketAddr,
    // Ends with the show.
    _running: std::sync::Arc<Running>,
}

fn start_devices() -> Result<Vec<Shown>, Failure> {
    let mut devices = Vec::new();
    for vendor in VENDORS {
        let running = Simulator::start(Plan { enable: ENABLE.to_owned(), ..Plan::of(vendor.platform, EACH) })
            .map_err(|e| Failure::local(format!("the simulated devices did not start: {e}")))?;
        let running = std::sync::Arc::new(running);
        for device in running.devices() {
            let address = device.ssh.ok_or_else(|| {
                Failure::new(Exit::Refused, "internal", "a simulated device has no SSH port")
            })?;
            devices.push(Shown { vendor, address, _running: std::sync::Arc::clone(&running) });
        }
    }
    Ok(devices)
}

fn entry(device: &Shown, what: &str, value: Value) -> Value {
    json!({
        "host": device.address.ip().to_string(),
        "port": device.address.port(),
        "device_type": device.vendor.platform,
        what: value,
    })
}

fn body(devices: Vec<Value>, enable: bool) -> Value {
    json!({
        "driver": "netmiko",
        "connection_args": {"username": "admin", "password": "admin", "secret": ENABLE},
        "enable_mode": enable,
        "devices": devices,
    })
}

/// The show itself: true when everything came out as it should.
async fn acts(url: &str, key: &str, devices: &[Shown], ui: &Ui) -> Result<bool, Failure> {
    let client = Client::new(url, key).map_err(|e| Failure::new(Exit::Refused, "internal", e.to_string()))?;
    let mut right = true;

    ui.line("\nPOST /device/bulk?wait=60   one query on each");
    let asked = devices.iter().map(|d| entry(d, "command", json!(d.vendor.ask))).collect();
    let (jobs, took) = bulk(&client, body(asked, false)).await?;
    right &= table(ui, devices, &jobs, first_line) && jobs.len() == devices.len();
    ui.toned(&format!("{} jobs in {}, sessions opened on the way", jobs.len(), seconds(took)), Tone::Dim);

    ui.line("\nPOST /device/bulk?wait=60   a change on the ten that are switches and routers");
    let changed: Vec<&Shown> = devices.iter().filter(|d| !d.vendor.change.is_empty()).collect();
    let lines = changed.iter().map(|d| entry(d, "config", json!(d.vendor.change))).collect();
    let (jobs, took) = bulk(&client, body(lines, true)).await?;
    let named =
        jobs.iter().zip(&changed).all(|(job, _)| job.result.as_ref().is_some_and(|r| r.outcome.is_some()));
    right &= named && table(ui, &changed, &jobs, |job| plain(&json!(job.command)));
    ui.toned(&format!("{} jobs in {}, over the sessions kept", jobs.len(), seconds(took)), Tone::Dim);

    ui.line("\nPOST /device/bulk?wait=60   and a look whether it is there");
    let looks = changed.iter().map(|d| entry(d, "command", json!(d.vendor.look))).collect();
    let (jobs, took) = bulk(&client, body(looks, true)).await?;
    let mut there = 0;
    for (job, device) in jobs.iter().zip(&changed) {
        if output(job).contains(device.vendor.then) {
            there += 1;
        } else {
            ui.warn(&format!("`{}` on {} does not show the change", device.vendor.look, device.address));
        }
    }
    right &= there == changed.len();
    ui.toned(&format!("{there} of {} show it, {}", changed.len(), seconds(took)), Tone::Dim);
    Ok(right)
}

async fn bulk(client: &Client, body: Value) -> Result<(Vec<JobInResponse>, f64), Failure> {
    let body =
        serde_json::from_value(body).map_err(|e| Failure::new(Exit::Refused, "internal", e.to_string()))?;
    let began = Instant::now();
    let BulkResponse { succeeded, failed } = client
        .bulk(&body, &Options::wait(Duration::from_secs(60)))
        .await
        .map_err(|e| Failure::new(Exit::Refused, "server", e.to_string()))?;
    if let Some(failure) = failed.first() {
        return Err(Failure::new(
            Exit::JobFailed,
            "rejected",
            format!("{}: {}", failure.host, failure.reason),
        ));
    }
    Ok((succeeded, began.elapsed().as_secs_f64()))
}

/// Prints one row a job; true when every one finished.
fn table<D: std::borrow::Borrow<Shown>>(
    ui: &Ui,
    devices: &[D],
    jobs: &[JobInResponse],
    said: impl Fn(&JobInResponse) -> String,
) -> bool {
    let rows = jobs
        .iter()
        .zip(devices)
        .map(|(job, device)| {
            let device = device.borrow();
            let status = job.status.as_str();
            let outcome = job.result.as_ref().and_then(|r| r.outcome).map_or("", |o| o.as_str());
            let error = job.result.as_ref().and_then(|r| r.error.as_ref()).map(ToString::to_string);
            vec![
                Text::from(device.address.to_string()),
                Text::from(device.vendor.platform),
                Text(status.to_owned(), tone_of(status)),
                Text(outcome.to_owned(), tone_of(outcome)),
                Text::from(job.duration.map(seconds).unwrap_or_default()),
                Text::from(short(&error.unwrap_or_else(|| said(job)), 60)),
            ]
        })
        .collect();
    ui.table(&["DEVICE", "PLATFORM", "STATUS", "OUTCOME", "TOOK", "ANSWER"], rows);
    jobs.iter().all(|job| job.status == JobStatus::Finished)
}

fn output(job: &JobInResponse) -> String {
    let items = job.result.as_ref().and_then(|r| r.retval.as_deref()).unwrap_or_default();
    items.iter().map(|item| plain(&item.stdout)).collect::<Vec<_>>().join("\n")
}

fn first_line(job: &JobInResponse) -> String {
    output(job).lines().find(|line| !line.trim().is_empty()).unwrap_or_default().to_owned()
}

fn invite(url: &str, key: &str, devices: &[Shown], ui: &Ui) {
    let Some(device) = devices.first() else { return };
    let (host, port) = (device.address.ip(), device.address.port());
    ui.line(&format!(
        "\nIt stays up until Ctrl-C. URL {url}   key {key}   documentation {url}/docs\n\n\
         curl -s -H 'X-API-KEY: {key}' '{url}/device/exec?wait=10' -H 'Content-Type: application/json' -d '{{\"driver\": \"netmiko\", \
         \"connection_args\": {{\"device_type\": \"cisco_ios\", \"host\": \"{host}\", \"port\": {port}, \"username\": \"admin\", \
         \"password\": \"admin\"}}, \"command\": \"show clock\"}}'\n\
         curl -s -H 'X-API-KEY: {key}' '{url}/jobs?limit=5'\n\
         curl -s -H 'X-API-KEY: {key}' '{url}/workers'"
    ));
}

/// A folder that goes with the show.
struct Temporary(std::path::PathBuf);

impl Temporary {
    fn new() -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("netpulse-demo-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&path).map_err(|e| Failure::local(format!("{}: {e}", path.display())))?;
        Ok(Self(path))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!(%error, folder = %self.0.display(), "the demo's folder is left behind");
        }
    }
}

//! `netpulse test`: does a device let us in?

use clap::Args;
use serde_json::{Value, json};

use crate::api::Api;
use crate::exit::{Exit, Failure, Outcome};
use crate::payload::LoginArgs;
use crate::ui::{Tone, Ui, plain, seconds};
use crate::view::{self, text};

/// Log in to a device and tell whether that works; nothing is queued and nothing sent
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse test --host 192.0.2.11 -d cisco_ios -u ops -k
  netpulse test --host 198.51.100.7 --driver paramiko -u deploy -i ~/.ssh/id_ed25519

Exits 0 when the device let us in, 1 when it did not.")]
pub struct TestArgs {
    /// Address or name of the device
    #[arg(long, value_name = "HOST")]
    host: String,
    /// Port [default: the driver's]
    #[arg(long)]
    port: Option<u16>,
    /// Driver: netmiko or paramiko [default: netmiko, or the profile's]
    #[arg(long)]
    driver: Option<String>,
    #[command(flatten)]
    login: LoginArgs,
}

pub async fn run(args: TestArgs, api: &Api, ui: &Ui) -> Outcome {
    let profile = api.profile();
    let driver = args.driver.as_deref().or(profile.driver.as_deref()).unwrap_or("netmiko");
    let who = format!("{}@{}", args.login.username.as_deref().unwrap_or("user"), args.host);
    let mut connection = args.login.connection_args(ui, &profile.connection_args, &who, true)?;
    connection.insert("host".into(), args.host.as_str().into());
    if let Some(port) = args.port {
        connection.insert("port".into(), port.into());
    }
    let answer = api.test(&json!({"driver": driver, "connection_args": connection})).await?;
    let success = answer.get("success").and_then(Value::as_bool).unwrap_or(false);
    if !ui.for_people() {
        ui.document(&answer)?;
        return Ok(if success { Exit::Ok } else { Exit::JobFailed });
    }
    if !success {
        let code = match text(&answer, "error_type") {
            "" => "test_failed",
            code => code,
        };
        let failure =
            Failure::new(Exit::JobFailed, code, format!("{}: {}", args.host, text(&answer, "error")));
        return Err(Failure { hint: view::advice(code), ..failure });
    }
    let latency = answer.get("latency").and_then(Value::as_f64).map(seconds).unwrap_or_default();
    ui.toned(&format!("{} lets us in, after {latency}", args.host), Tone::Good);
    if let Some(details) = answer.get("result").and_then(Value::as_object) {
        for (key, value) in details.iter().filter(|(_, value)| !value.is_null()) {
            ui.line(&format!("{key}: {}", plain(value)));
        }
    }
    Ok(Exit::Ok)
}

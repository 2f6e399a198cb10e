//! `netpulse exec`: one job on one device.

use std::time::Duration;

use clap::Args;
use serde_json::Value;

use crate::api::Api;
use crate::exit::{Exit, Outcome};
use crate::follow::follow;
use crate::payload::{JobArgs, LoginArgs};
use crate::ui::Ui;
use crate::view;

/// Run commands or push configuration on one device, and show what it answers
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse exec --host 192.0.2.11 -d cisco_ios -u ops -k -c 'show version'
  netpulse exec --host 192.0.2.11 -d cisco_ios -u ops -c 'show clock' -c 'show users' -o json
  netpulse exec --host 192.0.2.20 -d arista_eos -u ops --config @vlans.txt --enable --save
  netpulse exec --host 192.0.2.30 --driver paramiko -u deploy -i ~/.ssh/id_ed25519 -c 'df -h'
  netpulse exec --host 192.0.2.11 -d cisco_ios -u ops -c 'show ip int brief' --parse-type textfsm
  pass show lab | netpulse exec --host 192.0.2.40 -d huawei -u ops --password-stdin -c 'display cpu'

What the device says goes to standard output, all else to standard error. Exits 0 when the job
finished, 1 when it failed, 5 when it takes longer than --timeout.")]
pub struct ExecArgs {
    /// Address or name of the device
    #[arg(long, value_name = "HOST")]
    host: String,
    /// Port [default: the driver's: 22, or 23 for Telnet]
    #[arg(long)]
    port: Option<u16>,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    job: JobArgs,
    /// Print the job's id and do not wait for its end
    #[arg(long, help_heading = "Waiting")]
    no_wait: bool,
    /// Seconds to wait for the end
    #[arg(short, long, default_value_t = 300, value_name = "SECONDS", help_heading = "Waiting")]
    timeout: u64,
}

pub async fn run(args: ExecArgs, api: &Api, ui: &Ui) -> Outcome {
    let profile = api.profile();
    args.job.one_reader_of_stdin(&args.login)?;
    let mut body = args.job.request(profile.driver.as_deref())?;
    let who = format!("{}@{}", args.login.username.as_deref().unwrap_or("user"), args.host);
    let mut connection = args.login.connection_args(ui, &profile.connection_args, &who, true)?;
    connection.insert("host".into(), args.host.as_str().into());
    if let Some(port) = args.port {
        connection.insert("port".into(), port.into());
    }
    body.insert("connection_args".into(), Value::Object(connection));
    let parsed = args.job.parse_type.is_some();
    let job = api.submit(&Value::Object(body)).await?;
    let id = view::text(&job, "id").to_owned();
    if args.no_wait {
        if ui.for_people() {
            ui.note(&format!("queued in {}; `netpulse watch {id}` follows it", view::text(&job, "queue")));
            ui.line(&id);
        } else {
            ui.document(&job)?;
        }
        return Ok(Exit::Ok);
    }
    // Parsed output exists only at the end.
    let live = ui.for_people() && !parsed;
    let (job, printed) = follow(api, ui, &id, Duration::from_secs(args.timeout), live).await?;
    if ui.for_people() {
        show(ui, &job, printed);
    } else {
        ui.document(&job)?;
    }
    Ok(view::exit_of(&job))
}

/// Prints what of a job was not printed yet, and how it ended.
pub fn show(ui: &Ui, job: &Value, printed: usize) {
    let results = view::results(job);
    for (index, result) in results.iter().enumerate().skip(printed) {
        view::print_result(ui, index, results.len(), result);
    }
    view::print_end(ui, job);
}

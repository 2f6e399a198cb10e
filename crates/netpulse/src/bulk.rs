//! `netpulse bulk`: one job on each of many devices.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use futures_util::StreamExt;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, timeout_at};

use crate::api::Api;
use crate::devices::{self, Device};
use crate::exit::{Exit, Failure, Outcome};
use crate::follow::is_final;
use crate::payload::{JobArgs, LoginArgs};
use crate::ui::{Text, Tone, Ui, plain, seconds, short, tone_of};
use crate::view::{self, text};

/// Requests for jobs' ends at a time; each is held by the server.
const ASKING: usize = 64;
/// Seconds that one of them is held.
const HOLD: u64 = 20;
/// Devices shown before the question.
const SHOWN: usize = 20;

/// Run commands or push configuration on many devices
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  netpulse bulk devices.csv 'show version'
  netpulse bulk devices.csv --vendor CISCO --config @ntp.txt --enable --save --result ntp.csv
  netpulse bulk devices.yaml -d cisco_ios -u ops -k -c 'show clock' --force -o json
  netpulse bulk devices.json -c 'show clock' --no-wait

The file:
  CSV   columns Selected, Name, Site, Location, Rack, Vendor, Model, IP, Port, Username, Password,
        Keepalive; only IP (or Host) is needed. Also: device_type, secret, command, config.
        Where there is a column Selected, rows that say true are taken.
        Vendor is H3C, HUAWEI, CISCO, ARISTA or FORTINET; others need device_type or --device-type.
  YAML, JSON   a list of addresses or of mappings with the same names; other keys are connection
        arguments of that device.

Exits 0 when every job finished, 1 when one did not, 5 when some take longer than --timeout.")]
pub struct BulkArgs {
    /// Devices: a CSV, YAML or JSON file
    #[arg(value_name = "DEVICES")]
    devices: PathBuf,
    /// Only devices of this vendor
    #[arg(long)]
    vendor: Option<String>,
    #[command(flatten)]
    login: LoginArgs,
    #[command(flatten)]
    job: JobArgs,
    /// Do not ask before
    #[arg(short, long, help_heading = "Asking, waiting, writing")]
    force: bool,
    /// Print the jobs' ids and do not wait for their ends
    #[arg(long, help_heading = "Asking, waiting, writing")]
    no_wait: bool,
    /// Seconds to wait for all ends
    #[arg(
        short,
        long,
        default_value_t = 300,
        value_name = "SECONDS",
        help_heading = "Asking, waiting, writing"
    )]
    timeout: u64,
    /// Write the results to a file, CSV or JSON by its ending [default name: result_<time>.csv]
    #[arg(long, value_name = "FILE", num_args = 0..=1, default_missing_value = "", help_heading = "Asking, waiting, writing")]
    result: Option<PathBuf>,
}

/// One device with what came of it.
struct Row<'d> {
    device: &'d Device,
    /// `finished`, `failed`, ..., `TIMEOUT` or `Not Submitted`.
    status: String,
    job: Value,
    error: String,
}

pub async fn run(args: BulkArgs, api: &Api, ui: &Ui) -> Outcome {
    let profile = api.profile();
    args.job.one_reader_of_stdin(&args.login)?;
    let mut body = args.job.request(profile.driver.as_deref())?;
    let may_lack_platform = args.login.device_type.is_some()
        || profile.connection_args.contains_key("device_type")
        || ["paramiko", "pyeapi"].contains(&body.get("driver").and_then(Value::as_str).unwrap_or_default());
    let devices = devices::read(&args.devices, args.vendor.as_deref(), may_lack_platform)?;
    devices.warnings.iter().for_each(|warning| ui.warn(warning));
    if devices.chosen.is_empty() {
        return Err(Failure::usage(format!(
            "no device is chosen: the file has {}, none of them selected{}",
            devices.total,
            args.vendor.as_deref().map(|v| format!(" and of vendor {v}")).unwrap_or_default()
        )));
    }
    let need_password = devices.chosen.iter().any(|device| !device.entry.contains_key("password"));
    let who = format!("{} devices", devices.chosen.len());
    let connection = args.login.connection_args(ui, &profile.connection_args, &who, need_password)?;
    body.insert("connection_args".into(), Value::Object(connection));
    confirm(&args, ui, &body, &devices.chosen)?;
    let entries = devices.chosen.iter().map(|device| Value::Object(device.entry.clone())).collect();
    let payload = short(&payload_of(&body), 4096);
    body.insert("devices".into(), Value::Array(entries));

    let accepted = api.submit_bulk(&Value::Object(body)).await?;
    let mut rows = rows_of(&devices.chosen, &accepted)?;
    if args.no_wait {
        if ui.for_people() {
            print_table(ui, &rows);
        } else {
            ui.document(&accepted)?;
        }
        return Ok(if rows.iter().all(|row| row.job.is_object()) { Exit::Ok } else { Exit::JobFailed });
    }
    wait_for_all(api, ui, &mut rows, Duration::from_secs(args.timeout)).await?;
    if let Some(path) = &args.result {
        let path = if path.as_os_str().is_empty() {
            PathBuf::from(format!("result_{}.csv", chrono::Local::now().format("%Y%m%d_%H%M%S")))
        } else {
            path.clone()
        };
        write_results(&path, &rows, &payload)?;
        ui.note(&format!("results: {}", path.display()));
    }
    if ui.for_people() {
        print_table(ui, &rows);
        print_summary(ui, &rows);
    } else {
        ui.document(&rows.iter().map(|row| record(row, &payload)).collect::<Vec<_>>())?;
    }
    let all = |status: &str| rows.iter().all(|row| row.status == status);
    Ok(match () {
        () if all("finished") => Exit::Ok,
        () if rows.iter().all(|row| row.status == "finished" || row.status == "TIMEOUT") => Exit::Timeout,
        () => Exit::JobFailed,
    })
}

/// Shows what is about to happen and asks. Where nobody can be asked, a query runs and a change needs
/// `--force`.
fn confirm(args: &BulkArgs, ui: &Ui, body: &Map<String, Value>, devices: &[Device]) -> Result<(), Failure> {
    if args.force {
        return Ok(());
    }
    if !ui.can_ask() {
        return if args.job.changes() {
            Err(Failure::usage(format!(
                "nobody can be asked whether {} devices shall be changed",
                devices.len()
            ))
            .hint("give --force when that is what you want"))
        } else {
            Ok(())
        };
    }
    let rows = devices
        .iter()
        .take(SHOWN)
        .map(|device| {
            let field = |key: &str| device.entry.get(key).map(plain).unwrap_or_default();
            vec![
                device.name.as_str().into(),
                device.address().into(),
                field("device_type").into(),
                field("username").into(),
                Text::from(if device.entry.contains_key("password") {
                    netpulse_model::secret::MASK
                } else {
                    ""
                }),
            ]
        })
        .collect();
    ui.note_table(&["NAME", "DEVICE", "PLATFORM", "USERNAME", "PASSWORD"], rows);
    if devices.len() > SHOWN {
        ui.note(&format!("and {} more", devices.len() - SHOWN));
    }
    ui.note("");
    let shown = netpulse_model::secret::masked_map(body);
    for (key, value) in shown.iter().filter(|(key, _)| *key != "connection_args") {
        let lines = match value {
            Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("\n    "),
            other => plain(other),
        };
        ui.note(&format!("{key}: {lines}"));
    }
    let question = match (args.job.changes(), devices.len()) {
        (true, 1) => "Change 1 device?".to_owned(),
        (true, n) => format!("Change {n} devices?"),
        (false, 1) => "Run on 1 device?".to_owned(),
        (false, n) => format!("Run on {n} devices?"),
    };
    if ui.confirm(&question)? {
        Ok(())
    } else {
        Err(Failure::new(Exit::Interrupted, "not_confirmed", "nothing was sent"))
    }
}

fn payload_of(body: &Map<String, Value>) -> String {
    let lines = |value: &Value| match value {
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("; "),
        other => plain(other),
    };
    body.get("command").or_else(|| body.get("config")).map(lines).unwrap_or_default()
}

/// Pairs each device with the server's answer. `succeeded` keeps the order of the request, so the
/// refused ones are the gaps.
fn rows_of<'d>(devices: &'d [Device], accepted: &Value) -> Result<Vec<Row<'d>>, Failure> {
    let list = |key: &str| accepted.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let (succeeded, failed) = (list("succeeded"), list("failed"));
    if succeeded.len() + failed.len() != devices.len() {
        return Err(Failure::new(
            Exit::Refused,
            "bad_answer",
            format!(
                "the server answered for {} of {} devices",
                succeeded.len() + failed.len(),
                devices.len()
            ),
        ));
    }
    let mut refused: HashMap<String, Vec<String>> = HashMap::new();
    for item in failed.iter().rev() {
        refused.entry(text(item, "host").to_owned()).or_default().push(text(item, "reason").to_owned());
    }
    let mut jobs = succeeded.into_iter().peekable();
    let mut rows = Vec::with_capacity(devices.len());
    for device in devices {
        let is_its_job = jobs.peek().is_some_and(|job| belongs(job, device));
        let reason = refused.get_mut(device.host()).filter(|_| !is_its_job).and_then(Vec::pop);
        rows.push(match reason {
            Some(error) => Row { device, status: "Not Submitted".to_owned(), job: Value::Null, error },
            None => {
                let job = jobs.next().unwrap_or_default();
                Row { device, status: text(&job, "status").to_owned(), job, error: String::new() }
            }
        });
    }
    Ok(rows)
}

/// Whether a job is this device's: the queue names the port where the host alone does not tell.
fn belongs(job: &Value, device: &Device) -> bool {
    if !text(job, "device_name").eq_ignore_ascii_case(device.host()) {
        return false;
    }
    match text(job, "queue").strip_prefix("HostQ_") {
        Some(queue) => {
            let queue = queue.to_ascii_lowercase();
            queue == device.address().to_ascii_lowercase() || queue == device.host().to_ascii_lowercase()
        }
        None => true,
    }
}

async fn wait_for_all(api: &Api, ui: &Ui, rows: &mut [Row<'_>], wait: Duration) -> Result<(), Failure> {
    let deadline = Instant::now() + wait;
    let bar = ui.progress(rows.len() as u64, if ui.for_people() { "devices" } else { "" });
    let mut waiting = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        match row.job.is_object() && !is_final(&row.job) {
            true => waiting.push((index, text(&row.job, "id").to_owned())),
            false => bar.inc(1),
        }
    }
    let mut failed = rows.iter().filter(|row| !row.job.is_object()).count();
    let asking = waiting.into_iter().map(|(index, id)| async move {
        let ended = timeout_at(deadline, async {
            loop {
                let asked = Instant::now();
                let job = api.job(&id, HOLD).await?;
                if is_final(&job) {
                    return Ok(job);
                }
                // A server that does not hold requests must not be flooded.
                if asked.elapsed() < Duration::from_millis(500) {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        });
        let ended = match ended.await {
            Ok(ended) => Some(ended),
            // Whose turn to be asked came late may have ended long ago.
            Err(_) => match api.job(&id, 0).await {
                Ok(job) if !is_final(&job) => None,
                asked => Some(asked),
            },
        };
        (index, ended)
    });
    let mut ends = futures_util::stream::iter(asking).buffer_unordered(ASKING);
    let mut lost: Option<Failure> = None;
    loop {
        let next = tokio::select! {
            next = ends.next() => next,
            _ = tokio::signal::ctrl_c() => {
                bar.finish_and_clear();
                return Err(Failure::new(Exit::Interrupted, "interrupted", "the jobs go on without you")
                    .hint("`netpulse jobs` lists them, `netpulse cancel ID...` stops them"));
            }
        };
        let Some((index, ended)) = next else { break };
        match ended {
            Some(Ok(job)) => {
                rows[index].status = text(&job, "status").to_owned();
                rows[index].error = view::error_of(&job).map(|(what, _)| what).unwrap_or_default();
                failed += usize::from(rows[index].status != "finished");
                rows[index].job = job;
            }
            Some(Err(failure)) => {
                rows[index].status = "unknown".to_owned();
                rows[index].error = failure.to_string();
                failed += 1;
                lost = Some(failure);
            }
            None => {
                rows[index].status = "TIMEOUT".to_owned();
                rows[index].error = format!("has not ended within {} s; it goes on", wait.as_secs());
            }
        }
        bar.inc(1);
        bar.set_message(if failed > 0 { format!("{failed} failed") } else { String::new() });
    }
    bar.finish_and_clear();
    // The server gone for all of them is one fault, not a thousand.
    match lost {
        Some(failure) if rows.iter().all(|row| row.status == "unknown") => Err(failure),
        _ => Ok(()),
    }
}

fn print_table(ui: &Ui, rows: &[Row<'_>]) {
    let table = rows
        .iter()
        .map(|row| {
            let said = match row.error.is_empty() {
                false => Text(short(&row.error, 80), Tone::Bad),
                true => view::results(&row.job)
                    .last()
                    .map(|last| short(&plain(last.get("stdout").unwrap_or(&Value::Null)), 60))
                    .unwrap_or_default()
                    .into(),
            };
            let ran = row.job.get("duration").and_then(Value::as_f64).map(seconds).unwrap_or_default();
            vec![
                Text::from(row.device.name.as_str()),
                row.device.address().into(),
                Text(row.status.clone(), tone_of(&row.status)),
                ran.into(),
                said,
                Text(text(&row.job, "id").to_owned(), Tone::Dim),
            ]
        })
        .collect();
    ui.table(&["NAME", "DEVICE", "STATUS", "RAN", "RESULT", "JOB"], table);
}

fn print_summary(ui: &Ui, rows: &[Row<'_>]) {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for row in rows {
        match counts.iter_mut().find(|(status, _)| *status == row.status) {
            Some((_, count)) => *count += 1,
            None => counts.push((&row.status, 1)),
        }
    }
    let parts: Vec<String> = counts.iter().map(|(status, count)| format!("{count} {status}")).collect();
    let tone = if counts.iter().all(|(status, _)| *status == "finished") { Tone::Good } else { Tone::Bad };
    ui.note_toned(&format!("{} of {} devices", parts.join(", "), rows.len()), tone);
}

/// The columns of a result file, as the Python command line names them.
const RESULT_COLUMNS: &[&str] =
    &["IP", "Name", "Vendor", "Payload", "Status", "Job ID", "Result", "Error", "Start Time", "End Time"];

fn record(row: &Row<'_>, payload: &str) -> Value {
    let output = match view::results(&row.job) {
        [] => Value::Null,
        results => results
            .iter()
            .map(|r| {
                r.get("parsed").filter(|p| !p.is_null()).or(r.get("stdout")).cloned().unwrap_or_default()
            })
            .collect(),
    };
    json!({
        "ip": row.device.address(),
        "name": row.device.name,
        "vendor": row.device.vendor,
        "payload": own_payload(row, payload),
        "status": row.status,
        "job_id": row.job.get("id"),
        "outcome": row.job.get("result").and_then(|r| r.get("outcome")),
        "result": output,
        "error": if row.error.is_empty() { Value::Null } else { row.error.as_str().into() },
        "started_at": row.job.get("started_at"),
        "ended_at": row.job.get("ended_at"),
    })
}

fn own_payload(row: &Row<'_>, payload: &str) -> String {
    let own = payload_of(&row.device.entry);
    if own.is_empty() { payload.to_owned() } else { own }
}

fn write_results(path: &Path, rows: &[Row<'_>], payload: &str) -> Result<(), Failure> {
    let broken = |error: String| {
        Failure::local(format!("the result file `{}` cannot be written: {error}", path.display()))
    };
    if path.extension().is_some_and(|e| e.eq_ignore_ascii_case("json")) {
        let records: Vec<Value> = rows.iter().map(|row| record(row, payload)).collect();
        let text = serde_json::to_string_pretty(&records).map_err(|e| broken(e.to_string()))?;
        return std::fs::write(path, text + "\n").map_err(|e| broken(e.to_string()));
    }
    let mut file = csv::Writer::from_path(path).map_err(|e| broken(e.to_string()))?;
    file.write_record(RESULT_COLUMNS).map_err(|e| broken(e.to_string()))?;
    for row in rows {
        let output: Vec<String> = view::results(&row.job)
            .iter()
            .map(|result| plain(result.get("stdout").unwrap_or(&Value::Null)))
            .collect();
        let payload = own_payload(row, payload);
        file.write_record([
            &row.device.address(),
            &row.device.name,
            &row.device.vendor,
            &payload,
            &row.status,
            text(&row.job, "id"),
            &output.join("\n"),
            &row.error,
            text(&row.job, "started_at"),
            text(&row.job, "ended_at"),
        ])
        .map_err(|e| broken(e.to_string()))?;
    }
    file.flush().map_err(|e| broken(e.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(host: &str, port: Option<u16>) -> Device {
        let mut entry = Map::from_iter([("host".to_owned(), Value::from(host))]);
        if let Some(port) = port {
            entry.insert("port".to_owned(), port.into());
        }
        Device { name: String::new(), vendor: String::new(), entry }
    }

    #[test]
    fn refused_devices_are_told_apart_from_their_neighbours() {
        let devices = [device("a", None), device("b", Some(22)), device("b", Some(2001)), device("c", None)];
        let job = |id: &str, host: &str, queue: &str| json!({"id": id, "status": "queued", "device_name": host, "queue": queue});
        let accepted = json!({
            "succeeded": [job("1", "a", "HostQ_a"), job("2", "b", "HostQ_b:2001"), job("3", "c", "FifoQ")],
            "failed": [{"host": "b", "reason": "no such thing"}],
        });
        let rows = rows_of(&devices, &accepted).unwrap();
        let told: Vec<(&str, &str)> = rows.iter().map(|r| (r.status.as_str(), text(&r.job, "id"))).collect();
        assert_eq!(told, [("queued", "1"), ("Not Submitted", ""), ("queued", "2"), ("queued", "3")]);
        assert!(rows_of(&devices[..2], &accepted).is_err());
    }

    #[test]
    fn result_files_have_the_known_columns() {
        let folder = tempfile::tempdir().unwrap();
        let devices = [device("a", None), device("b", None)];
        let job = json!({"id": "1", "status": "finished", "started_at": "s", "ended_at": "e",
            "result": {"retval": [{"stdout": "line, one\nline two"}]}});
        let rows = [
            Row { device: &devices[0], status: "finished".into(), job, error: String::new() },
            Row {
                device: &devices[1],
                status: "Not Submitted".into(),
                job: Value::Null,
                error: "why".into(),
            },
        ];
        let path = folder.path().join("r.csv");
        write_results(&path, &rows, "show clock").unwrap();
        let written = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            written,
            "IP,Name,Vendor,Payload,Status,Job ID,Result,Error,Start Time,End Time\n\
             a,,,show clock,finished,1,\"line, one\nline two\",,s,e\nb,,,show clock,Not Submitted,,,why,,\n"
        );
        let path = folder.path().join("r.json");
        write_results(&path, &rows, "show clock").unwrap();
        let written: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(
            (&written[0]["result"][0], &written[1]["error"]),
            (&json!("line, one\nline two"), &json!("why"))
        );
        assert!(write_results(Path::new("/nowhere/r.csv"), &rows, "").unwrap_err().exit == Exit::Local);
    }
}

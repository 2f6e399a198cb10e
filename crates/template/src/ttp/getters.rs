//! Variables filled from the text or the clock: `gethostname`, `get_time`, ...

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::error::TtpError;
use super::regex::{Search, escape};
use super::value::py_str;

/// Prompts by which a host name is found, tried in this order.
const PROMPTS: [&str; 7] = [
    r"\n\S{1,2}:(\S+?)[>#].*(?=\n)",
    r"\n\S+:(\S+)#.*(?=\n)",
    r"\n(\S+)#.*(?=\n)",
    r"\n\S*@(\S+)>.*(?=\n)",
    r"\n<(\S+)>.*(?=\n)",
    r"\n(\S+)>.*(?=\n)",
    r"\n(\S+ \(\S+\)) #.*(?=\n)",
];

fn hostname(text: &str) -> Result<Option<String>, TtpError> {
    for p in PROMPTS {
        if let Some(groups) = Search::new(p)?.groups(text)? {
            let name = groups.into_iter().nth(1).flatten().unwrap_or_default();
            return Ok(Some(name.trim_start_matches('\u{feff}').to_owned()));
        }
    }
    Ok(None)
}

/// Date of a day count since 1970 (proleptic Gregorian calendar).
fn civil(days: i64) -> (i64, i64, i64) {
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1_460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + i64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

/// The value of a getter; None where it finds nothing. Times are UTC.
pub(crate) fn get(getter: &str, text: &str) -> Result<Option<Value>, TtpError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let secs = now.as_secs() as i64;
    let (y, m, d) = civil(secs.div_euclid(86_400));
    let day = secs.rem_euclid(86_400);
    let date = format!("{y:04}-{m:02}-{d:02}");
    let time = format!("{:02}:{:02}:{:02}", day / 3600, day / 60 % 60, day % 60);
    Ok(match getter {
        "gethostname" => hostname(text)?.map(Value::from),
        "getfilename" => Some(Value::from("text_data")),
        "get_time" => Some(Value::from(time)),
        "get_date" => Some(Value::from(date)),
        "get_timestamp" => Some(Value::from(format!("{date} {time}"))),
        "get_timestamp_ms" => Some(Value::from(format!("{date} {time}.{:03}", now.subsec_millis()))),
        "get_timestamp_iso" => Some(Value::from(format!("{date}T{time}.{:06}+00:00", now.subsec_micros()))),
        "get_time_ns" => Some(Value::from(now.as_nanos() as u64)),
        _ => None,
    })
}

/// The outputs of the named commands within a session's text, found by its prompt.
pub(crate) fn extract_commands(text: &str, commands: &[Value]) -> Result<Option<String>, TtpError> {
    let Some(host) = hostname(text)? else { return Ok(None) };
    let host = escape(&host);
    let mut out = String::new();
    for command in commands {
        let p = format!(r"{host}[#>] *{} *\n([\S\s]+?)(?={host}[#>]|$)", py_str(command));
        if let Some(whole) = Search::new(&p)?.groups(text)?.and_then(|g| g.into_iter().next().flatten()) {
            out.push('\n');
            out.push_str(&whole);
            out.push('\n');
        }
    }
    Ok((!out.is_empty()).then_some(out))
}

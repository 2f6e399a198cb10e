//! What is to be done on a device, from flags and files: shared by `exec` and `bulk`.

use std::io::Read;

use clap::{Args, ValueEnum};
use serde_json::{Map, Value, json};

use crate::exit::{Exit, Failure};
use crate::ui::Ui;

/// The drivers of this version. `netpulse serve` runs these; the help names them.
pub const DRIVERS: [&str; 2] = ["netmiko", "paramiko"];

/// Which queue a job waits in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Strategy {
    // The device's own queue and live session; or any free slot.
    Pinned,
    Fifo,
}

/// Who goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Priority {
    High,
    Normal,
    Low,
}

/// What to do, and how.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "What to do")]
pub struct JobArgs {
    /// Commands to run, each in quotes: as --command
    #[arg(value_name = "COMMAND", conflicts_with_all = ["command", "config"])]
    pub commands: Vec<String>,
    /// Command to run; repeat for several, or @FILE with one per line (@- reads standard input)
    #[arg(short, long, alias = "cmd", value_name = "TEXT|@FILE", conflicts_with = "config")]
    pub command: Vec<String>,
    /// Configuration line to push; repeat for several, or @FILE with one per line (@- reads standard input)
    #[arg(short = 'C', long, alias = "cfg", value_name = "TEXT|@FILE", required_unless_present_any = ["command", "commands"])]
    pub config: Vec<String>,
    /// Save the configuration after the push
    #[arg(long)]
    pub save: bool,
    /// Enter privileged mode first (--enable=false: do not)
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub enable: Option<bool>,
    /// Driver: netmiko or paramiko [default: netmiko, or the profile's]
    #[arg(long)]
    pub driver: Option<String>,
    /// Options of the driver, as JSON or @FILE (JSON or YAML)
    #[arg(long, alias = "da", value_name = "JSON|@FILE")]
    pub driver_args: Option<String>,
    /// Queue to wait in [default: by driver]
    #[arg(long, value_enum)]
    pub queue_strategy: Option<Strategy>,
    /// Place among other jobs of the device
    #[arg(long, value_enum)]
    pub priority: Option<Priority>,
    /// Seconds the job may wait in its queue
    #[arg(long, value_name = "SECONDS")]
    pub ttl: Option<u64>,
    /// Seconds the job may run
    #[arg(long, value_name = "SECONDS")]
    pub execution_timeout: Option<u64>,
    /// Seconds the result is kept
    #[arg(long, value_name = "SECONDS")]
    pub result_ttl: Option<u64>,
    /// Values for the template: renders the command or configuration first (JSON or @FILE)
    #[arg(long, alias = "rc", value_name = "JSON|@FILE")]
    pub render_context: Option<String>,
    /// Template to render, in place of the command's or configuration's own text
    #[arg(short = 'R', long, value_name = "TEXT|@FILE")]
    pub render_template: Option<String>,
    /// Renderer
    #[arg(long, value_name = "NAME", default_value = "jinja2")]
    pub render_type: String,
    /// Parser for the output: textfsm or ttp
    #[arg(long, value_name = "NAME")]
    pub parse_type: Option<String>,
    /// Template of the parser; without it the installed ntc-templates are searched
    #[arg(short = 'P', long, value_name = "TEXT|@FILE", requires = "parse_type")]
    pub parse_template: Option<String>,
}

impl JobArgs {
    /// The request without its device.
    pub fn request(&self, default_driver: Option<&str>) -> Result<Map<String, Value>, Failure> {
        let driver = self.driver.as_deref().or(default_driver).unwrap_or("netmiko");
        let mut body = Map::new();
        body.insert("driver".into(), driver.into());
        let rendered = self.render_context.is_some() || self.render_template.is_some();
        let (key, texts) =
            if self.changes() { ("config", self.config.as_slice()) } else { ("command", self.sent()?) };
        body.insert(key.into(), payload(key, texts, rendered)?);
        if rendered {
            let mut rendering = json!({"name": self.render_type});
            if let Some(template) = &self.render_template {
                rendering["template"] = text_or_file("--render-template", template)?.into();
            }
            if let Some(context) = &self.render_context {
                rendering["context"] = object("--render-context", context)?.into();
            }
            body.insert("rendering".into(), rendering);
        }
        if let Some(parser) = &self.parse_type {
            let mut parsing = json!({"name": parser});
            match &self.parse_template {
                Some(template) => parsing["template"] = text_or_file("--parse-template", template)?.into(),
                None if parser == "textfsm" => parsing["use_ntc_template"] = true.into(),
                None => {}
            }
            body.insert("parsing".into(), parsing);
        }
        if let Some(driver_args) = &self.driver_args {
            body.insert("driver_args".into(), object("--driver-args", driver_args)?.into());
        }
        if self.save {
            body.insert("save".into(), true.into());
        }
        if let Some(enable) = self.enable {
            body.insert("enable_mode".into(), enable.into());
        }
        let strategy = self.queue_strategy.map(|s| match s {
            Strategy::Pinned => "pinned",
            Strategy::Fifo => "fifo",
        });
        let priority = self.priority.map(|p| match p {
            Priority::High => "high",
            Priority::Normal => "normal",
            Priority::Low => "low",
        });
        for (key, value) in [("queue_strategy", strategy), ("priority", priority)] {
            if let Some(value) = value {
                body.insert(key.into(), value.into());
            }
        }
        for (key, value) in [
            ("ttl", self.ttl),
            ("execution_timeout", self.execution_timeout),
            ("result_ttl", self.result_ttl),
        ] {
            if let Some(value) = value {
                body.insert(key.into(), value.into());
            }
        }
        Ok(body)
    }

    /// Standard input can be read once: by the password, or by one `@-`.
    pub fn one_reader_of_stdin(&self, login: &LoginArgs) -> Result<(), Failure> {
        let texts = self.commands.iter().chain(&self.command).chain(&self.config);
        let more = [&self.driver_args, &self.render_context, &self.render_template, &self.parse_template];
        let more = more.into_iter().chain([&login.connection_args]).flatten();
        let readers =
            texts.chain(more).filter(|text| *text == "@-").count() + usize::from(login.password_stdin);
        if readers > 1 {
            return Err(Failure::usage(
                "standard input is asked for twice: only one of @- and --password-stdin can have it",
            ));
        }
        Ok(())
    }

    /// Whether the device is changed.
    pub fn changes(&self) -> bool {
        self.command.is_empty() && self.commands.is_empty()
    }

    /// The commands, however they were given. Several single words are one command without its
    /// quotes: `reload in 5` must not become `reload`.
    fn sent(&self) -> Result<&[String], Failure> {
        match self.commands.as_slice() {
            [] => Ok(&self.command),
            words @ [_, _, ..] if words.iter().all(|word| !word.contains([' ', '@'])) => {
                let line = words.join(" ");
                Err(Failure::usage(format!("`{line}`: is this one command, or {}?", words.len()))
                    .hint(format!("one command is '{line}' in quotes; several are given by -c each")))
            }
            commands => Ok(commands),
        }
    }
}

/// The lines of `--command` or `--config`; for a template one text, or the values themselves.
fn payload(key: &str, texts: &[String], rendered: bool) -> Result<Value, Failure> {
    let flag = format!("--{key}");
    if rendered && let [only] = texts {
        let text = text_or_file(&flag, only)?;
        // Values in place of text: they lie over --render-context.
        if let Ok(Value::Object(values)) = serde_json::from_str(&text) {
            return Ok(Value::Object(values));
        }
        return Ok(Value::String(text));
    }
    let mut lines: Vec<Value> = Vec::new();
    for text in texts {
        if text.starts_with('@') {
            let file = text_or_file(&flag, text)?;
            lines.extend(file.lines().map(str::trim_end).filter(|line| !line.is_empty()).map(Value::from));
        } else {
            lines.push(text.as_str().into());
        }
    }
    if lines.is_empty() {
        return Err(Failure::usage(format!("{flag}: there is nothing to send: the file has no lines")));
    }
    Ok(Value::Array(lines))
}

/// The text itself, or the text of `@FILE`; `@-` is standard input.
pub fn text_or_file(flag: &str, text: &str) -> Result<String, Failure> {
    let Some(path) = text.strip_prefix('@') else { return Ok(text.to_owned()) };
    if path == "-" {
        let mut all = String::new();
        std::io::stdin()
            .read_to_string(&mut all)
            .map_err(|e| Failure::local(format!("{flag}: standard input cannot be read: {e}")))?;
        return Ok(all);
    }
    std::fs::read_to_string(path).map_err(|e| {
        Failure::new(Exit::Usage, "file_unreadable", format!("{flag}: `{path}` cannot be read: {e}"))
            .hint("`@` in front means a file; without it the text itself is taken")
    })
}

/// A JSON object, or one from `@FILE` (JSON or YAML).
pub fn object(flag: &str, text: &str) -> Result<Map<String, Value>, Failure> {
    let source = text_or_file(flag, text)?;
    // YAML is a superset of JSON, and its message names line and column.
    match yaml_serde::from_str::<Value>(&source) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Failure::usage(format!("{flag}: expected an object like {{\"key\": \"value\"}}"))),
        Err(error) => Err(Failure::usage(format!("{flag}: is neither JSON nor YAML: {error}"))),
    }
}

/// Who logs in. Secrets come from the environment, standard input or a question; a flag would show
/// them to every user of this machine.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Logging in")]
pub struct LoginArgs {
    /// Platform of the device, as Netmiko names it (cisco_ios, juniper_junos, linux, ...)
    #[arg(short, long, value_name = "NAME")]
    pub device_type: Option<String>,
    /// User
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// Password, seen by every user of this machine: better --ask-password or the environment
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["ask_password", "password_stdin"])]
    pub password: Option<String>,
    /// Ask for the password on the terminal [environment: NETPULSE_DEVICE_PASSWORD]
    #[arg(short = 'k', long, conflicts_with = "password_stdin")]
    pub ask_password: bool,
    /// Read the password from the first line of standard input
    #[arg(long)]
    pub password_stdin: bool,
    /// Ask for the enable secret on the terminal [environment: NETPULSE_DEVICE_SECRET]
    #[arg(long)]
    pub ask_secret: bool,
    /// Private key file of this machine to log in with [its passphrase: NETPULSE_DEVICE_PASSPHRASE]
    #[arg(short = 'i', long, value_name = "FILE")]
    pub private_key: Option<String>,
    /// Path of the secret to log in with at the server's credential provider, or the whole reference as JSON
    #[arg(long, value_name = "PATH|JSON", conflicts_with_all = ["username", "password", "ask_password", "password_stdin"])]
    pub credential: Option<String>,
    /// More connection arguments (timeout, proxy_host, ...), as JSON or @FILE (JSON or YAML)
    #[arg(long, value_name = "JSON|@FILE")]
    pub connection_args: Option<String>,
}

impl LoginArgs {
    /// Connection arguments: the profile's, below `--connection-args`, below the flags.
    /// Asks for a password when `needed` and none is known and somebody can answer.
    pub fn connection_args(
        &self,
        ui: &Ui,
        profile: &Map<String, Value>,
        who: &str,
        needed: bool,
    ) -> Result<Map<String, Value>, Failure> {
        let mut args = profile.clone();
        if let Some(more) = &self.connection_args {
            args.extend(object("--connection-args", more)?);
        }
        if let Some(reference) = &self.credential {
            let reference = if reference.trim_start().starts_with('{') {
                Value::Object(object("--credential", reference)?)
            } else {
                Value::from(reference.as_str())
            };
            // The secret brings both: what the profile says would only be overruled.
            args.retain(|key, _| !matches!(key.as_str(), "username" | "password"));
            args.insert("credential_ref".into(), reference);
        }
        for (key, value) in [("device_type", &self.device_type), ("username", &self.username)] {
            if let Some(value) = value {
                args.insert(key.into(), value.as_str().into());
            }
        }
        for (key, variable) in [
            ("password", "NETPULSE_DEVICE_PASSWORD"),
            ("secret", "NETPULSE_DEVICE_SECRET"),
            ("passphrase", "NETPULSE_DEVICE_PASSPHRASE"),
        ] {
            let overruled = key == "password" && self.credential.is_some();
            if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty() && !overruled)
            {
                args.insert(key.into(), value.into());
            }
        }
        if let Some(path) = &self.private_key {
            args.insert("pkey".into(), text_or_file("--private-key", &format!("@{path}"))?.into());
        }
        if let Some(password) = &self.password {
            ui.warn("--password is seen by every user of this machine: use --ask-password, --password-stdin or NETPULSE_DEVICE_PASSWORD");
            args.insert("password".into(), password.as_str().into());
        } else if self.password_stdin {
            let mut line = String::new();
            std::io::stdin()
                .read_line(&mut line)
                .map_err(|e| Failure::local(format!("standard input cannot be read: {e}")))?;
            args.insert("password".into(), line.trim_end_matches(['\r', '\n']).into());
        } else if self.ask_password || (needed && !proves_itself(&args) && ui.can_ask()) {
            if !ui.can_ask() {
                return Err(Failure::usage("--ask-password: there is no terminal to ask on")
                    .hint("use --password-stdin or NETPULSE_DEVICE_PASSWORD"));
            }
            let password = ui.secret(&format!("Password for {who}: "))?;
            // Just Enter: there is none.
            if !password.is_empty() {
                args.insert("password".into(), password.into());
            }
        }
        if self.ask_secret {
            args.insert("secret".into(), ui.secret(&format!("Enable secret for {who}: "))?.into());
        }
        Ok(args)
    }
}

fn proves_itself(args: &Map<String, Value>) -> bool {
    ["password", "pkey", "key_file", "use_keys", "allow_agent", "credential_ref"]
        .iter()
        .any(|key| args.get(*key).is_some_and(|value| !value.is_null() && *value != Value::Bool(false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        job: JobArgs,
    }

    fn request(flags: &[&str]) -> Result<Value, Failure> {
        let line = Line::try_parse_from([&["x"], flags].concat()).unwrap();
        line.job.request(None).map(Value::Object)
    }

    #[test]
    fn flags_become_a_request() {
        let body = request(&["-c", "show clock", "--cmd", "show version", "--enable", "--ttl", "9"]).unwrap();
        assert_eq!(
            body,
            json!({"driver": "netmiko", "command": ["show clock", "show version"], "enable_mode": true, "ttl": 9})
        );
        let body =
            request(&["--config", "vlan 5", "--save", "--da", "{\"read_timeout\": 5}", "--enable=false"])
                .unwrap();
        assert_eq!(
            body,
            json!({"driver": "netmiko", "config": ["vlan 5"], "driver_args": {"read_timeout": 5}, "save": true,
                   "enable_mode": false})
        );
    }

    #[test]
    fn commands_need_no_flag_but_their_quotes() {
        assert_eq!(request(&["show clock", "who"]).unwrap()["command"], json!(["show clock", "who"]));
        assert_eq!(request(&["uptime"]).unwrap()["command"], json!(["uptime"]));
        let error = request(&["reload", "in", "5"]).unwrap_err();
        assert!(error.hint.unwrap().contains("'reload in 5'"));
    }

    #[test]
    fn a_file_gives_one_line_each() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lines.txt");
        std::fs::write(&path, "vlan 5\r\n name a\n\n!\nend").unwrap();
        let body = request(&["--config", &format!("@{}", path.display())]).unwrap();
        assert_eq!(body["config"], json!(["vlan 5", " name a", "!", "end"]));
        let error = request(&["--config", "@/nowhere"]).unwrap_err();
        assert!(error.what.contains("--config: `/nowhere` cannot be read"), "{error}");
        std::fs::write(&path, "\n\n").unwrap();
        assert!(request(&["-c", &format!("@{}", path.display())]).unwrap_err().what.contains("no lines"));
    }

    #[test]
    fn templates_take_a_text_or_values() {
        let body = request(&["--config", "vlan {{ id }}", "--rc", "{id: 5}"]).unwrap();
        assert_eq!(body["config"], "vlan {{ id }}");
        assert_eq!(body["rendering"], json!({"name": "jinja2", "context": {"id": 5}}));
        let body = request(&["--config", "{\"id\": 7}", "-R", "vlan {{ id }}"]).unwrap();
        assert_eq!(body["config"], json!({"id": 7}));
        assert_eq!(body["rendering"]["template"], "vlan {{ id }}");
    }

    #[test]
    fn a_credential_takes_the_place_of_user_and_password() {
        #[derive(Parser)]
        struct Login {
            #[command(flatten)]
            login: LoginArgs,
        }
        let ui = Ui::new(crate::ui::Format::Json);
        let profile = json!({"username": "me", "password": "mine", "device_type": "cisco_ios"});
        let args = |reference: &str| {
            let line = Login::try_parse_from(["x", "--credential", reference]).unwrap();
            line.login.connection_args(&ui, profile.as_object().unwrap(), "sw1", true).map(Value::Object)
        };
        assert_eq!(
            args("sites/hq").unwrap(),
            json!({"device_type": "cisco_ios", "credential_ref": "sites/hq"})
        );
        assert_eq!(args("{path: a, provider: env}").unwrap()["credential_ref"]["provider"], "env");
        assert!(Login::try_parse_from(["x", "--credential", "a", "--password", "b"]).is_err());
    }

    #[test]
    fn one_of_command_and_config_is_needed_and_not_both() {
        assert!(Line::try_parse_from(["x"]).is_err());
        assert!(Line::try_parse_from(["x", "-c", "a", "-C", "b"]).is_err());
        assert!(Line::try_parse_from(["x", "-c", "show", "version"]).is_err());
        assert!(Line::try_parse_from(["x", "-C", "vlan", "5"]).is_err());
        assert!(
            request(&["-c", "a", "--driver-args", "[1]"]).unwrap_err().what.contains("expected an object")
        );
    }
}

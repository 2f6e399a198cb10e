//! A driver in under sixty lines: its device answers every command with itself, and takes
//! configuration into a candidate in which the word `bad` is an error.

use netpulse_plugin_sdk::{
    Call, ConnectionArgs, Driver, ErrorCode, ExecutionResult, Failure, Outcome, Plugin, Session, async_trait,
    json,
};

struct Echo;

struct EchoSession {
    host: String,
}

#[async_trait]
impl Driver for Echo {
    async fn connect(&self, args: &ConnectionArgs, _call: &Call) -> Result<Box<dyn Session>, Failure> {
        let host = args.host().unwrap_or_default().to_owned();
        if host == "unreachable" {
            return Err(Failure::device(ErrorCode::ConnectFailed, format!("{host} does not answer")));
        }
        Ok(Box::new(EchoSession { host }))
    }
}

#[async_trait]
impl Session for EchoSession {
    async fn command(&mut self, command: &str, _call: &Call) -> Result<ExecutionResult, Failure> {
        Ok(ExecutionResult::ok(command, format!("{}: {command}", self.host)))
    }

    async fn line(&mut self, line: &str, _call: &Call) -> Result<ExecutionResult, Failure> {
        if line.contains("bad") {
            return Ok(ExecutionResult::failed(line, "% Invalid input"));
        }
        Ok(ExecutionResult::ok(line, ""))
    }

    async fn discard(&mut self, _call: &Call) -> Result<Outcome, Failure> {
        Ok(Outcome::NotApplied)
    }
}

fn main() -> std::process::ExitCode {
    Plugin::new("netpulse.example/driver/echo/v1", env!("CARGO_PKG_VERSION"))
        .describe("Answers every command with itself")
        .driver("echo", Echo)
        .feature("config")
        .schema("connection_args", json!({"type": "object", "required": ["host"]}))
        .example("/driver/connect", json!({"connection_args": {"host": "192.0.2.1"}}))
        .example("/driver/config", json!({"lines": ["vlan 30"]}))
        .serve()
}

//! The plugin `tables`: two parsers for texts that need no template.
//!
//! `kv` makes an object of `key: value` lines, `columns` a list of objects of a table with a header.

mod columns;
mod kv;

use netpulse_plugin_sdk::{Call, Failure, ParseCall, Parser, Plugin, Value, async_trait, json};

struct Kv;

#[async_trait]
impl Parser for Kv {
    async fn parse(&self, request: ParseCall, _call: &Call) -> Result<Value, Failure> {
        let options = kv::Options::read(&request.args).map_err(Failure::bad_request)?;
        Ok(kv::parse(&request.context, &options))
    }
}

struct Columns;

#[async_trait]
impl Parser for Columns {
    async fn parse(&self, request: ParseCall, _call: &Call) -> Result<Value, Failure> {
        let options = columns::Options::read(&request.args).map_err(Failure::bad_request)?;
        columns::parse(&request.context, &options).map_err(Failure::bad_request)
    }
}

fn main() -> std::process::ExitCode {
    Plugin::new("netpulse.example/parser/tables/v1", env!("CARGO_PKG_VERSION"))
        .describe("Key-value texts and tables of columns")
        .parser("kv", Kv)
        .schema("args", kv::schema())
        .example("/template/parse", json!({"context": "Model: X1\nSerial: 7\n"}))
        .parser("columns", Columns)
        .schema("args", columns::schema())
        .example("/template/parse", json!({"context": "Port  State\nGi0/1 up\n"}))
        .serve()
}

//! Compile and run of each engine on a text of usual size: `cargo bench -p netpulse-template`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use netpulse_template::{Limits, Renderer as _, jinja2, textfsm, ttp};
use serde_json::json;

const FSM: &str = "Value Required INTF (\\S+)\nValue ADDRESS (\\d+\\.\\d+\\.\\d+\\.\\d+|unassigned)\nValue STATUS (up|down|administratively down)\nValue PROTO (up|down)\n\nStart\n  ^Interface\\s+IP-Address -> Continue\n  ^${INTF}\\s+${ADDRESS}\\s+\\w+\\s+\\w+\\s+${STATUS}\\s+${PROTO}\\s*$$ -> Record\n  ^\\s*$$\n  ^. -> Error\n";
const TTP: &str = "<group name=\"interfaces*\">\ninterface {{ name }}\n description {{ description | ORPHRASE }}\n ip address {{ ip | IP }} {{ mask }}\n mtu {{ mtu | to_int }}\n</group>";
const JINJA2: &str = "{% for i in interfaces %}interface {{ i.name }}\n description {{ i.description|default('none') }}\n{% if i.ip %} ip address {{ i.ip }}\n{% endif %}{% endfor %}";

fn textfsm(c: &mut Criterion) {
    let brief: String = (0..100).map(|n| format!("Gi0/{n}   10.0.{n}.1   YES NVRAM  up   up\n")).collect();
    let brief = brief.as_str();
    let mut group = c.benchmark_group("textfsm");
    group.throughput(Throughput::Bytes(brief.len() as u64));
    group.bench_function("compile", |b| b.iter(|| textfsm::Template::compile(black_box(FSM)).unwrap()));
    let template = textfsm::Template::compile(FSM).unwrap();
    assert_eq!(template.parse(brief).unwrap().len(), 100);
    group.bench_function("parse", |b| b.iter(|| template.parse(black_box(brief)).unwrap()));
    group
        .bench_function("parse to maps", |b| b.iter(|| template.parse(black_box(brief)).unwrap().to_value()));
    group.finish();
}

fn ttp(c: &mut Criterion) {
    let text: String = (0..48)
        .map(|n| format!("interface Gi0/{n}\n description to core {n}\n ip address 10.0.{n}.1 255.255.255.0\n mtu 9000\n!\n"))
        .collect();
    let mut group = c.benchmark_group("ttp");
    group.throughput(Throughput::Bytes(text.len() as u64));
    let options = ttp::Options::default();
    group.bench_function("compile", |b| b.iter(|| ttp::Template::compile(black_box(TTP), &options).unwrap()));
    let template = ttp::Template::compile(TTP, &options).unwrap();
    let rows = template.parse(&text).unwrap()["_root_template_"][0]["interfaces"].as_array().unwrap().len();
    assert_eq!(rows, 48);
    group.bench_function("parse", |b| b.iter(|| template.parse(black_box(&text)).unwrap()));
    group.finish();
}

fn jinja2(c: &mut Criterion) {
    let interfaces: Vec<_> = (0..48)
        .map(|n| json!({"name": format!("Gi0/{n}"), "ip": format!("10.0.{n}.1 255.255.255.0")}))
        .collect();
    let context = json!({ "interfaces": interfaces });
    let (options, limits) = (jinja2::Options::default(), Limits::default());
    let mut group = c.benchmark_group("jinja2");
    group.bench_function("compile", |b| {
        b.iter(|| jinja2::Template::compile(black_box(JINJA2), &options, &limits).unwrap());
    });
    let template = jinja2::Template::compile(JINJA2, &options, &limits).unwrap();
    group.throughput(Throughput::Bytes(template.render(&context).unwrap().len() as u64));
    group.bench_function("render", |b| b.iter(|| template.render(black_box(&context)).unwrap()));
    group.finish();
}

criterion_group!(benches, textfsm, ttp, jinja2);
criterion_main!(benches);

//! Promise 15: bad input gets a sentence, and nothing is half done.

use serde_json::{Value, json};

use crate::world::{Answer, config, exec, world, world_with};

fn with(changes: Value) -> Value {
    let mut body = exec("192.0.2.1");
    for (key, value) in changes.as_object().unwrap() {
        body[key] = value.clone();
    }
    body
}

#[tokio::test]
async fn promise_15_exec_names_what_is_wrong() {
    let w = world().await;
    let table: Vec<(Value, u16, &str)> = vec![
        (json!([]), 422, "Invalid JSON request: Input should be a valid dictionary"),
        (json!("text"), 422, "Invalid JSON request: Input should be a valid dictionary"),
        (json!(null), 422, "Invalid JSON request: Input should be a valid dictionary"),
        (json!({}), 422, "Invalid JSON request: driver: Field required; connection_args: Field required"),
        (with(json!({"driver": 7})), 422, "Invalid JSON request: driver: Input should be a valid string"),
        (with(json!({"driver": "nonsense"})), 400, "Unsupported driver: nonsense"),
        (with(json!({"driver": "../etc"})), 400, "Unsupported driver: ../etc"),
        (
            with(json!({"connection_args": "x"})),
            422,
            "Invalid JSON request: connection_args: Input should be a valid dictionary",
        ),
        (with(json!({"connection_args": {}})), 400, "'host' in connection_args is required"),
        (with(json!({"connection_args": {"host": "  "}})), 400, "'host' in connection_args is required"),
        (with(json!({"connection_args": {"host": "h", "port": 70000}})), 400, "Validation Error"),
        (with(json!({"config": "vlan 3"})), 422, "Only one of `config` or `command` can be set"),
        (
            with(json!({"command": null})),
            422,
            "Either `config`, `command`, `file_transfer`, or an actionable `driver_args` set.",
        ),
        (
            with(json!({"command": null, "config": {"a": 1}})),
            422,
            "`rendering` should be set when command/config is a dict",
        ),
        (
            with(json!({"command": [1, 2]})),
            422,
            "command: Input should be a valid string, list of strings, or dictionary",
        ),
        (with(json!({"ttl": 0})), 422, "ttl: Input should be greater than or equal to 1"),
        (with(json!({"ttl": 86401})), 422, "ttl: Input should be less than or equal to 86400"),
        (
            with(json!({"ttl": "soon"})),
            422,
            "ttl: Input should be a valid integer, unable to parse string as an integer",
        ),
        (with(json!({"result_ttl": 59})), 422, "result_ttl: Input should be greater than or equal to 60"),
        (
            with(json!({"execution_timeout": -1})),
            422,
            "execution_timeout: Input should be greater than or equal to 1",
        ),
        (with(json!({"queue_strategy": "lifo"})), 422, "queue_strategy: Input should be 'fifo' or 'pinned'"),
        (with(json!({"priority": "urgent"})), 422, "priority: Input should be 'high', 'normal' or 'low'"),
        (with(json!({"audit_mode": 1})), 422, "audit_mode: Input should be"),
        (with(json!({"retry": {"max": 99}})), 422, "retry.max: Input should be less than or equal to 10"),
        (
            with(json!({"wait": "soon"})),
            422,
            "Value error, Input should be a number of seconds from 0 to 86400",
        ),
        (
            with(json!({"webhook": {"url": "ftp://x"}})),
            422,
            "Input should be a URL that begins with http:// or https://",
        ),
        (with(json!({"detach": true})), 422, "Detached mode is not available"),
        (with(json!({"staged_file_id": "/etc/passwd"})), 422, "`staged_file_id` is set by the server only"),
        (with(json!({"file_transfer": {"operation": "upload"}})), 422, "File transfer is not available"),
        (
            with(json!({"credential": {"ref": "a"}})),
            400,
            "Credential support is disabled in server configuration",
        ),
    ];
    for (body, status, sentence) in &table {
        let answer = w.post("/device/exec", body).await;
        assert_eq!(answer.status, *status, "{body}: {}", answer.text);
        assert!(
            answer.text.replace("\\\"", "\"").contains(sentence),
            "{body}\n wants {sentence}\n got {}",
            answer.text
        );
        assert!(!answer.text.contains("s3cret-pw"), "{}", answer.text);
    }
    assert!(w.queue.all().is_empty(), "nothing was half done");
}

#[tokio::test]
async fn the_error_bodies_are_upstreams() {
    let w = world().await;
    let port =
        w.post("/device/exec", &with(json!({"connection_args": {"host": "h", "port": 70000}}))).await.json();
    assert_eq!(port["detail"], "Validation Error");
    assert_eq!(
        port["errors"][0],
        json!({"type": "less_than_equal", "loc": ["connection_args", "port"],
        "msg": "Input should be less than or equal to 65535", "input": null})
    );
    let given = json!({"host": "h", "device_type": "echo"});
    let echo = w
        .post("/device/exec", &with(json!({"connection_args": given, "queue_strategy": "pinned"})))
        .await
        .json();
    assert_eq!(echo["errors"][0]["input"], given, "the client's own input, nothing added");
    let secret =
        w.post("/device/test", &json!({"connection_args": {"host": "h", "password": "s3cret-pw"}})).await;
    assert!(
        secret.status == 422 && secret.text.contains("******") && !secret.text.contains("s3cret-pw"),
        "{}",
        secret.text
    );
    let test = w.post("/device/test", &json!({})).await;
    assert_eq!(test.status, 422);
    assert_eq!(
        test.json()["detail"][0],
        json!({"type": "missing", "loc": ["body", "driver"], "msg": "Field required", "input": {}})
    );
    let rule = w.post("/device/bulk", &with(json!({"config": "x", "devices": [{"host": "a"}]}))).await;
    assert_eq!(rule.json()["detail"][0]["msg"], "Value error, Only one of `config` or `command` can be set");
    let path = w.get("/jobs/%ff").await;
    assert_eq!((path.status, path.json()), (400, json!({"detail": "The path is not valid UTF-8"})));
    assert_eq!(w.get("/nowhere").await.json(), json!({"detail": "Not Found"}));
    let method = Answer::read(w.request("PUT", "/jobs").send().await.unwrap()).await;
    assert_eq!((method.status, method.json()), (405, json!({"detail": "Method Not Allowed"})));
}

#[tokio::test]
async fn bodies_that_are_no_json() {
    let w = world().await;
    let deep = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000));
    for body in ["", "{", "{\"driver\":NaN}", "\u{0}", "{\"driver\":\"netmiko\"} trailing", deep.as_str()] {
        for path in ["/device/exec", "/device/bulk", "/device/test", "/template/render"] {
            let request =
                w.request("POST", path).header("content-type", "application/json").body(body.to_owned());
            let answer = Answer::read(request.send().await.unwrap()).await;
            assert_eq!(answer.status, 422, "{path}: {}", answer.text);
            assert!(answer.text.len() < 2000);
            if path == "/device/exec" {
                assert!(answer.json()["detail"].as_str().unwrap().starts_with("Invalid JSON request: "));
            } else {
                assert_eq!(answer.json()["detail"][0]["loc"][0], "body");
            }
        }
    }
    let invalid = w.request("POST", "/device/exec").body(vec![b'"', 0xff, 0xfe, b'"']);
    assert_eq!(invalid.send().await.unwrap().status().as_u16(), 422);
}

#[tokio::test]
async fn bulk_names_the_device_or_the_field() {
    let w = world().await;
    let bulk = |devices: Value| json!({"driver": "netmiko", "connection_args": {}, "command": "x", "devices": devices});
    let no_host = w.post("/device/bulk", &bulk(json!([{"host": "a"}, {"port": 22}]))).await;
    assert_eq!(
        (no_host.status, no_host.json()["detail"].clone()),
        (400, json!("'host' is required for each device"))
    );
    assert_eq!(no_host.json()["errors"][0]["loc"], json!(["devices", 1]));
    let not_a_list = w.post("/device/bulk", &bulk(json!("a"))).await;
    assert_eq!(
        (not_a_list.status, not_a_list.json()["detail"][0]["loc"].clone()),
        (422, json!(["body", "devices"]))
    );
    let two = w.post("/device/bulk", &bulk(json!([{"host": "a", "command": "x", "config": "y"}]))).await;
    assert_eq!(two.status, 422);
    assert!(two.text.contains("Device a: cannot specify more than one of"));
    let mut unknown = bulk(json!([{"host": "a"}]));
    unknown["driver"] = json!("nonsense");
    assert_eq!(w.post("/device/bulk", &unknown).await.status, 400);
    let mut few = config();
    few.server.max_bulk = 2;
    let w = world_with(few).await;
    let many = w.post("/device/bulk", &bulk(json!([{"host": "a"}, {"host": "b"}, {"host": "c"}]))).await;
    assert_eq!(many.status, 413);
    assert!(many.text.contains("server.max_bulk"));
}

#[tokio::test]
async fn query_parameters_are_named() {
    let w = world().await;
    for (path, name) in [
        ("/jobs?status=done", "status"),
        ("/jobs?state=queued,done", "state"),
        ("/jobs?queue=lifo", "queue"),
        ("/jobs?limit=0", "limit"),
        ("/jobs?limit=1001", "limit"),
        ("/jobs?limit=ten", "limit"),
        ("/jobs?since=yesterday", "since"),
        ("/jobs?until=x", "until"),
        ("/jobs?cursor=12", "cursor"),
        ("/jobs/6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55?wait=-1", "wait"),
        ("/jobs/6c0e9d0e-7f6f-4a0e-b7e7-2f2f6d9d1e55?wait=inf", "wait"),
        ("/workers?queue=lifo", "queue"),
        ("/events?after=x", "after"),
    ] {
        let answer = w.get(path).await;
        assert_eq!(answer.status, 422, "{path}: {}", answer.text);
        let detail = &answer.json()["detail"][0];
        assert_eq!(detail["loc"], json!(["query", name]), "{path}");
        assert!(
            detail["msg"].as_str().unwrap().len() > 20 && detail["input"].is_string(),
            "{path}: {detail}"
        );
    }
}

#[tokio::test]
async fn template_bodies_are_checked() {
    let w = world().await;
    let answer =
        w.post("/template/parse", &json!({"name": "textfsm", "template": "x", "context": {"a": 1}})).await;
    assert_eq!((answer.status, answer.json()["detail"][0]["loc"].clone()), (422, json!(["body", "context"])));
    let answer = w.post("/template/render", &json!({"template": 5})).await;
    assert_eq!(
        (answer.status, answer.json()["detail"][0]["loc"].clone()),
        (422, json!(["body", "template"]))
    );
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig { cases: 24, ..Default::default() })]
    /// Whatever comes in the fields, the answer is an answer: no 500, no reset.
    #[test]
    fn promise_15_arbitrary_fields_never_break_the_server(
        field in proptest::sample::select(vec!["driver", "command", "config", "ttl", "rendering", "parsing", "retry", "options", "driver_args", "devices", "wait", "priority"]),
        value in proptest::sample::select(vec!["null", "true", "-1", "1e400", "\"\"", "\"\\u0000\"", "[]", "[null]", "{}", "{\"a\":{\"b\":[]}}", "18446744073709551616", "\"\\ud83d\\ude00\""]),
        path in proptest::sample::select(vec!["/device/exec", "/device/bulk", "/device/test", "/device/execute", "/template/parse"]),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let w = world().await;
            let body = format!("{{\"driver\":\"netmiko\",\"connection_args\":{{\"host\":\"h\"}},\"command\":\"x\",\"{field}\":{value}}}");
            let answer = Answer::read(w.request("POST", path).body(body.clone()).send().await.unwrap()).await;
            assert!(answer.status < 500, "{path} {body}: {} {}", answer.status, answer.text);
            let _: Value = answer.json();
        });
    }
}

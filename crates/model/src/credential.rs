//! References to secrets: how requests name a credential that lies with a provider.
//!
//! Today's form is the top-level `credential`; the early API's is `credential_ref` among the
//! connection arguments (of the request, or of one device of a bulk request). Both are read here
//! into one [`CredentialRef`], and no trace of the early form is left in the arguments.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::fields::Fields;
use crate::request::ConnectionArgs;

/// A reference to a secret. Names it, and never holds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CredentialRef {
    /// The provider; the configured default (`credential.name`) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The secret's path, without the mount.
    #[serde(rename = "ref")]
    pub reference: String,
    /// The mount; the configured one (`credential.mount`) when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
    /// The secret's version, from 1; the latest when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The namespace; the configured one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Connection argument to field of the secret. Without it: `username`, `password`, and `pkey`
    /// when the secret has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_mapping: Option<BTreeMap<String, String>>,
    /// Whatever else a provider reads.
    #[serde(flatten)]
    #[schema(additional_properties)]
    pub extra: BTreeMap<String, Value>,
}

impl CredentialRef {
    /// A reference to `path` at the default provider.
    pub fn to(path: impl Into<String>) -> Self {
        Self { reference: path.into(), ..Self::default() }
    }

    /// The connection arguments that the secret will fill for certain.
    pub fn destinations(&self) -> impl Iterator<Item = &str> {
        let mapped = self.field_mapping.iter().flat_map(|mapping| mapping.keys().map(String::as_str));
        let default = self.field_mapping.is_none().then_some(["username", "password"]);
        mapped.chain(default.into_iter().flatten())
    }
}

/// Arguments that say which device a job is for: they decided about its queue before the secret was
/// looked at, so they cannot come out of it.
const FIXED: &[&str] = &["host", "ip", "hostname", "port", "device_type", "credential_ref", "credential"];

/// Keys of an object form that have a meaning of their own.
const KNOWN: &[&str] = &[
    "ref",
    "path",
    "name",
    "provider",
    "mount",
    "version",
    "namespace",
    "field_mapping",
    "username_key",
    "password_key",
];

/// Whether a value asks for something: `null` and `false` do not.
fn asks(value: &Value) -> bool {
    !matches!(value, Value::Null | Value::Bool(false))
}

/// The reference of a request: `credential`, or `credential_ref` taken out of `args`.
pub(crate) fn take(f: &mut Fields<'_>, args: &mut ConnectionArgs) -> Option<CredentialRef> {
    let early = args.0.shift_remove("credential_ref").is_some_and(|value| asks(&value));
    let today = f.get("credential").is_some_and(asks);
    if today && early {
        let sentence = "give either `credential` or `connection_args.credential_ref`, not both";
        f.error("credential", "value_error", sentence);
        return None;
    }
    if today {
        read(f, "credential")
    } else if early {
        f.nested("connection_args", |inner| read(inner, "credential_ref")).flatten()
    } else {
        None
    }
}

/// What one device of a bulk request says: nothing, that it wants no reference (`null`), or its own.
pub(crate) fn of_device(f: &mut Fields<'_>) -> Option<Option<CredentialRef>> {
    let said: Vec<&str> =
        ["credential", "credential_ref"].into_iter().filter(|key| f.map().contains_key(*key)).collect();
    let asking: Vec<&str> = said.iter().copied().filter(|key| f.get(key).is_some_and(asks)).collect();
    match asking.as_slice() {
        [] => (!said.is_empty()).then_some(None),
        [key] => Some(read(f, key)),
        _ => {
            f.error("credential", "value_error", "give either `credential` or `credential_ref`, not both");
            None
        }
    }
}

/// Reads either form at `key`: a text is a path at the default provider.
fn read(f: &mut Fields<'_>, key: &str) -> Option<CredentialRef> {
    if let Some(Value::String(path)) = f.get(key) {
        if path.trim().is_empty() {
            f.error(key, "value_error", "Input should be the path of a secret");
            return None;
        }
        return Some(CredentialRef::to(path.trim()));
    }
    if !f.get(key).is_some_and(Value::is_object) {
        let sentence = "Input should be an object with `ref`, or the path of a secret";
        f.error(key, "dict_type", sentence);
        return None;
    }
    f.nested(key, read_object).flatten()
}

fn read_object(f: &mut Fields<'_>) -> Option<CredentialRef> {
    let text = |f: &mut Fields<'_>, key: &str| {
        f.string(key).map(|text| text.trim().to_owned()).filter(|text| !text.is_empty())
    };
    let reference = match text(f, "ref") {
        Some(path) => path,
        None => match text(f, "path") {
            Some(path) => path,
            None if f.get("ref").is_none() && f.get("path").is_none() => {
                f.missing("ref");
                return None;
            }
            None => {
                f.error("ref", "value_error", "Input should be the path of a secret");
                return None;
            }
        },
    };
    let name = text(f, "name").or_else(|| text(f, "provider"));
    let version = f.integer("version", 1, i64::from(u32::MAX)).and_then(|n| u64::try_from(n).ok());
    let (mount, namespace) = (text(f, "mount"), text(f, "namespace"));
    let field_mapping = mapping(f);
    let extra = f
        .map()
        .iter()
        .filter(|(key, value)| !KNOWN.contains(&key.as_str()) && !value.is_null())
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    Some(CredentialRef { name, reference, mount, version, namespace, field_mapping, extra })
}

/// `field_mapping`, else what `username_key` and `password_key` mean.
fn mapping(f: &mut Fields<'_>) -> Option<BTreeMap<String, String>> {
    if let Some(given) = f.object("field_mapping") {
        return checked(f, &given);
    }
    let keys = (f.string("username_key"), f.string("password_key"));
    if keys == (None, None) {
        return None;
    }
    let or = |key: Option<String>, default: &str| {
        key.filter(|k| !k.is_empty()).unwrap_or_else(|| default.to_owned())
    };
    Some(BTreeMap::from([
        ("username".to_owned(), or(keys.0, "username")),
        ("password".to_owned(), or(keys.1, "password")),
    ]))
}

fn checked(f: &mut Fields<'_>, given: &Map<String, Value>) -> Option<BTreeMap<String, String>> {
    if given.is_empty() {
        let sentence = "Input should name at least one connection argument, or be left out";
        f.error("field_mapping", "value_error", sentence);
        return None;
    }
    let mut mapping = BTreeMap::new();
    for (argument, field) in given {
        if FIXED.contains(&argument.as_str()) {
            let sentence =
                format!("`{argument}` cannot come from a secret: it says which device the job is for");
            f.error("field_mapping", "value_error", sentence);
            return None;
        }
        match field.as_str().filter(|field| !field.is_empty()) {
            Some(field) if !argument.is_empty() => mapping.insert(argument.clone(), field.to_owned()),
            _ => {
                let sentence = format!(
                    "Input should map connection arguments to names of fields: `{argument}` has no such name"
                );
                f.error("field_mapping", "value_error", sentence);
                return None;
            }
        };
    }
    Some(mapping)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{BulkRequest, ExecutionRequest, TestRequest};
    use serde_json::json;

    fn exec(extra: Value) -> Result<ExecutionRequest, String> {
        let mut body = json!({"driver": "netmiko", "command": "x", "connection_args": {"host": "h"}});
        for (key, value) in extra.as_object().unwrap() {
            body[key] = value.clone();
        }
        ExecutionRequest::read(&body, 300).map_err(|errors| crate::fields::sentence(&errors))
    }

    #[test]
    fn every_form_of_a_reference_is_read() {
        let early = |value: Value| exec(json!({"connection_args": {"host": "h", "credential_ref": value}}));
        let keys = BTreeMap::from([
            ("username".to_owned(), "user".to_owned()),
            ("password".to_owned(), "password".to_owned()),
        ]);
        for (request, expected) in [
            (early(json!("sites/hq")), CredentialRef::to("sites/hq")),
            (early(json!({"path": "sites/hq"})), CredentialRef::to("sites/hq")),
            (exec(json!({"credential": {"ref": "sites/hq"}})), CredentialRef::to("sites/hq")),
            (
                early(json!({"provider": "vault", "path": "sites/hq", "username_key": "user"})),
                CredentialRef {
                    name: Some("vault".into()),
                    field_mapping: Some(keys),
                    ..CredentialRef::to("sites/hq")
                },
            ),
            (
                exec(json!({"credential": {"ref": "a", "mount": "kv", "version": "2", "namespace": null,
                    "role": "r"}})),
                CredentialRef {
                    mount: Some("kv".into()),
                    version: Some(2),
                    extra: BTreeMap::from([("role".to_owned(), json!("r"))]),
                    ..CredentialRef::to("a")
                },
            ),
        ] {
            let request = request.unwrap();
            assert_eq!(request.credential, Some(expected));
            assert!(!request.connection_args.0.contains_key("credential_ref"));
        }
        for nothing in [json!(null), json!(false)] {
            assert_eq!(early(nothing.clone()).unwrap().credential, None);
            assert_eq!(exec(json!({"credential": nothing})).unwrap().credential, None);
        }
    }

    #[test]
    fn promise_15_a_wrong_reference_is_told_by_its_path() {
        for (extra, sentence) in [
            (json!({"credential": {}}), "credential.ref: Field required"),
            (json!({"credential": 7}), "credential: Input should be an object with `ref`"),
            (json!({"credential": {"ref": 7}}), "credential.ref: Input should be a valid string"),
            (
                json!({"credential": {"ref": "a", "version": 0}}),
                "credential.version: Input should be greater",
            ),
            (
                json!({"credential": {"ref": "a", "field_mapping": {}}}),
                "credential.field_mapping: Input should name at least one",
            ),
            (
                json!({"credential": {"ref": "a", "field_mapping": {"host": "h"}}}),
                "`host` cannot come from a secret",
            ),
            (
                json!({"credential": {"ref": "a", "field_mapping": {"password": 1}}}),
                "`password` has no such name",
            ),
            (
                json!({"connection_args": {"host": "h", "credential_ref": {"provider": "vault"}}}),
                "connection_args.credential_ref.ref: Field required",
            ),
            (
                json!({"credential": {"ref": "a"}, "connection_args": {"host": "h", "credential_ref": "b"}}),
                "not both",
            ),
        ] {
            let said = exec(extra.clone()).unwrap_err();
            assert!(said.contains(sentence), "{extra}: {said}");
        }
    }

    #[test]
    fn a_device_of_a_bulk_request_may_have_its_own_reference_or_none() {
        let body = json!({"driver": "netmiko", "command": "x", "connection_args": {"credential_ref": "base"},
            "devices": [{"host": "a"}, {"host": "b", "credential_ref": "own"}, {"host": "c", "credential": null},
                        {"host": "d", "credential": {"ref": "e", "mount": "m"}}, {"host": "f", "credential": 7}]});
        let bulk = BulkRequest::read(&body).unwrap();
        assert_eq!(bulk.credential, Some(CredentialRef::to("base")));
        let paths: Vec<Option<&str>> = bulk.devices[..4]
            .iter()
            .map(|d| d.as_ref().unwrap().credential.as_ref().map(|c| c.reference.as_str()))
            .collect();
        assert_eq!(paths, [Some("base"), Some("own"), None, Some("e")]);
        let args = &bulk.devices[1].as_ref().unwrap().connection_args.0;
        assert!(!args.contains_key("credential_ref") && !args.contains_key("credential"));
        assert!(bulk.devices[4].as_ref().unwrap_err().reason.contains("an object with `ref`"));
    }

    #[test]
    fn a_connection_test_and_a_stored_request_carry_the_reference() {
        let body = json!({"driver": "netmiko", "connection_args": {"host": "h", "credential_ref": "a"}});
        assert_eq!(TestRequest::read(&body).unwrap().credential, Some(CredentialRef::to("a")));
        let request = exec(json!({"credential": {"ref": "a", "version": 3, "zone": "x"}})).unwrap();
        let stored = serde_json::to_vec(&request).unwrap();
        assert_eq!(serde_json::from_slice::<ExecutionRequest>(&stored).unwrap(), request);
    }
}

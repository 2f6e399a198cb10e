"""The Python client for Vault that people use (hvac) against the fake of the tests: `with_hvac.py URL ROOT ROLE SECRET_ID`.

If hvac can work with the fake, the fake speaks Vault; if NetPulse can work with the fake, NetPulse speaks Vault.
"""

import sys

import hvac
from hvac.exceptions import Forbidden, InvalidPath, InvalidRequest, VaultDown

url, root, role, secret_id = sys.argv[1:5]


def raises(kind, call):
    try:
        call()
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


client = hvac.Client(url=url, token=root)
assert client.is_authenticated()
me = client.auth.token.lookup_self()["data"]
assert me["id"] == root and me["ttl"] == 0, me
health = client.sys.read_health_status(method="GET")
assert health["initialized"] and not health["sealed"], health
assert not client.sys.is_sealed()

kv = client.secrets.kv.v2
for word in ("one", "two"):
    written = kv.create_or_update_secret("sites/hq", {"username": "ops", "password": word}, mount_point="kv")
assert written["data"]["version"] == 2, written
raises(InvalidRequest, lambda: kv.create_or_update_secret("sites/hq", {"a": "b"}, cas=1, mount_point="kv"))
latest = kv.read_secret_version("sites/hq", mount_point="kv", raise_on_deleted_version=True)
assert latest["data"]["data"] == {"username": "ops", "password": "two"}, latest
first = kv.read_secret_version("sites/hq", version=1, mount_point="kv", raise_on_deleted_version=True)
assert first["data"]["data"]["password"] == "one" and first["data"]["metadata"]["version"] == 1, first
kv.update_metadata("sites/hq", custom_metadata={"owner": "noc"}, mount_point="kv")
about = kv.read_secret_metadata("sites/hq", mount_point="kv")["data"]
assert about["current_version"] == 2 and set(about["versions"]) == {"1", "2"}, about
assert about["custom_metadata"] == {"owner": "noc"}, about

kv.create_or_update_secret("top", {"a": "b"}, mount_point="kv")
kv.create_or_update_secret("sites/lab/sw", {"a": "b"}, mount_point="kv")
assert kv.list_secrets("", mount_point="kv")["data"]["keys"] == ["from/", "sites/", "top"]
assert kv.list_secrets("sites", mount_point="kv")["data"]["keys"] == ["hq", "lab/"]
raises(InvalidPath, lambda: kv.list_secrets("nowhere", mount_point="kv"))

kv.delete_latest_version_of_secret("top", mount_point="kv")
raises(InvalidPath, lambda: kv.read_secret_version("top", mount_point="kv", raise_on_deleted_version=True))
kv.delete_metadata_and_all_versions("sites/hq", mount_point="kv")
raises(InvalidPath, lambda: kv.read_secret_version("sites/hq", mount_point="kv", raise_on_deleted_version=True))
raises(InvalidPath, lambda: kv.read_secret_metadata("sites/hq", mount_point="kv"))

visitor = hvac.Client(url=url)
raises(Forbidden, lambda: visitor.secrets.kv.v2.read_secret_version("top", mount_point="kv"))
raises(InvalidRequest, lambda: visitor.auth.approle.login(role, "wrong"))
auth = visitor.auth.approle.login(role, secret_id)["auth"]
assert visitor.token == auth["client_token"] and auth["renewable"] and auth["lease_duration"] == 3600, auth
assert visitor.is_authenticated()
assert visitor.auth.token.renew_self()["auth"]["lease_duration"] == 3600
visitor.auth.token.revoke_self()
assert not hvac.Client(url=url, token=auth["client_token"]).is_authenticated()

# What NetPulse wrote before this script began.
ours = kv.read_secret_version("from/netpulse", mount_point="kv", raise_on_deleted_version=True)
assert ours["data"]["data"] == {"username": "np", "password": "pw with \u00e4 and \" in it"}, ours
# And what it reads after it.
kv.create_or_update_secret("from hvac/\u00e4%2e?", {"username": "hv", "password": "pw\n\u2713"}, mount_point="kv")

if len(sys.argv) > 5:
    raises(VaultDown, lambda: hvac.Client(url=sys.argv[5], token=root).auth.token.lookup_self())
print("all ok")

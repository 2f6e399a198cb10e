"""Drives a NetPulse server with the Python client that users have (netpulse-sdk)."""

import json
import sys

from netpulse_sdk import AuthError, NetPulseClient

url, key, hosts = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
args = {"device_type": "cisco_ios", "username": "admin", "password": "admin", "secret": "admin", "port": int(sys.argv[4])}
np = NetPulseClient(base_url=url, api_key=key, driver="netmiko", default_connection_args=args)


def check(what, condition, seen=""):
    if not condition:
        sys.exit(f"FAILED: {what}: {seen}")
    print(f"ok: {what}")


check("ping", np.ping())
check("health", np.get_health().get("status") == "ok")

job = np.collect(hosts[0], command="show version")
result = job.first()
check("collect one device", result.ok and "Cisco" in result.stdout, job.to_json())
check("the result names its device", result.metadata["host"] == hosts[0], result.metadata)
check("times are read", job.duration is not None and job.queue_time is not None, job.to_json())

group = np.collect(hosts, command=["show version", "show clock"])
group.wait(timeout=60)
check("collect many devices", group.all_ok and len(group.results()) == 2 * len(hosts), group.to_dict())
check("bulk keeps names and order", list(group.stdout) == hosts, list(group.stdout))
mixed = np.collect([hosts[-1], hosts[0]], command="show version")
mixed.wait(timeout=60)
check("known and new hosts keep their names", [j.device_name for j in mixed._jobs] == [hosts[-1], hosts[0]] if hasattr(mixed, "_jobs") else True)

change = np.run(hosts[0], config=["interface Loopback7", "description from the sdk"], save=True)
change.wait(timeout=60)
check("run a change", change.all_ok, change.to_json())
look = np.run(hosts[0], command="show running-config", enable_mode=True)
look.wait(timeout=60)
seen = look.first()
check("the change is on the device", "from the sdk" in seen.stdout, seen.stdout)

# The quick start of the client's own README: a configuration that sets the host name.
named = np.run(hosts[1], config=["hostname named-by-sdk"])
named.wait(timeout=60)
check("a change of the host name", named.all_ok, named.to_json())

refused = np.run(hosts[0], config=["bogus line", "interface Loopback8"])
refused.wait(timeout=60)
check("a refused line is not all ok", not refused.all_ok and refused.status == "failed", refused.to_json())

check("get_job", np.get_job(job.id).id == job.id)
check("list_jobs", any(j.id == job.id for j in np.list_jobs(host=hosts[0], status="finished", queue=f"HostQ_{hosts[0]}:{sys.argv[4]}")))
workers = np.list_workers()
check("list_workers", any("HostQ_" in (w.queues or [""])[0] for w in workers), workers)

test = np.test_connection(hosts[0])
check("test_connection", test.ok and test.prompt and test.device_type == "cisco_ios", test)
wrong = np.test_connection(hosts[0], connection_args={"password": "wrong"})
check("a refused login is said", not wrong.ok and wrong.error, wrong)
check("test_connections", all(t.ok for t in np.test_connections(hosts)))

rendered = np.render_template(name="jinja2", template="hostname {{ h }}", context={"h": "edge1"})
check("render_template", rendered == "hostname edge1", rendered)
parsed = np.parse_template(name="textfsm", template="Value V (\\S+)\n\nStart\n  ^Version ${V} -> Record\n", output="Version 9.9\n")
check("parse_template", parsed == [{"V": "9.9"}], parsed)

slow = np.run(hosts[2], command="show tech-support", driver_args={"expect_string": "never seen", "read_timeout": 30})
behind = np.run(hosts[2], command="show clock")
check("cancel a waiting job", behind.cancel(), behind.to_json())
behind.refresh()
check("it ends canceled", behind.status == "canceled", behind.status)
check("cancel a running job", slow.cancel() in (True, False))

name = next(w.name for w in np.list_workers() if w.name.endswith(f"HostQ_{hosts[1]}:{sys.argv[4]}"))
check("delete_worker", np.delete_worker(name))
again = np.collect(hosts[1], command="show clock")
again.wait(timeout=30)
check("D8: a job after delete_worker is served", again.all_ok, again.to_json())

try:
    NetPulseClient(base_url=url, api_key="wrong-key").get_health()
    sys.exit("FAILED: a wrong key was accepted")
except AuthError:
    print("ok: a wrong key is refused")
print("all ok")

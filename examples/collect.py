#!/usr/bin/env python3
"""Asks all devices of devices.csv the same command and prints one line each.

    pip install netpulse-sdk
    export NETPULSE_URL=http://127.0.0.1:9000 NETPULSE_API_KEY=change-me-please
    python3 examples/collect.py examples/devices.csv "show version"
"""

import csv
import os
import sys

from netpulse_sdk import NetPulseClient


def main() -> int:
    devices_file, command = sys.argv[1], sys.argv[2]
    with open(devices_file, newline="") as file:
        devices = [{**row, "port": int(row["port"])} for row in csv.DictReader(file)]

    client = NetPulseClient(
        base_url=os.environ.get("NETPULSE_URL", "http://127.0.0.1:9000"),
        api_key=os.environ["NETPULSE_API_KEY"],
        driver="netmiko",
    )
    # The driver needs the platform; user and password stand in the file, once per device.
    job = client.collect(
        devices=devices,
        command=command,
        connection_args={"device_type": devices[0]["device_type"]},
    )
    bad = 0
    for result in job:
        if result.ok:
            first = (result.stdout or "").strip().splitlines()[:1]
            print(f"{result.device_name:<20} {first[0] if first else ''}")
        else:
            bad += 1
            print(f"{result.device_name:<20} FAILED {result.error}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())

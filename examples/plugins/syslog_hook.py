#!/usr/bin/env python3
"""A webhook: one syslog message (RFC 5424 over UDP) per job that ended. `url` is udp://host:port."""

import json
import socket
from datetime import datetime, timezone
from urllib.parse import urlsplit

from netpulse_plugin import BadRequest, Plugin, Unavailable, Webhook, run

FACILITY = 16  # local0
SEVERITY = {"finished": 6, "canceled": 5, "failed": 3}


class Syslog(Webhook):
    name = "syslog"
    examples = {"/webhook/validate": {"request": {"name": "syslog", "url": "udp://192.0.2.5:514"}}}

    def place(self, request):
        try:
            url = urlsplit(str(request.get("url")))
            good = url.scheme == "udp" and url.hostname
            port = url.port or 514
        except ValueError:
            good = False
        if not good:
            raise BadRequest("webhook.url: Input should look like udp://host:514")
        return url.hostname, port

    def validate(self, request):
        self.place(request)

    def call(self, delivery):
        status = str(delivery.job.get("status"))
        priority = FACILITY * 8 + SEVERITY.get(status, 4)
        when = datetime.now(timezone.utc).isoformat()
        # The delivery's id is the same in every attempt: a collector can drop what comes twice.
        said = json.dumps({"job": delivery.job.get("id"), "status": status, "device": delivery.job.get("device_name")})
        message = f"<{priority}>1 {when} netpulse netpulse - {delivery.delivery} - {said}"
        host, port = self.place(delivery.request)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(message.encode(), (host, port))
        except OSError as error:
            raise Unavailable(f"{host}:{port}: {error}")


run(
    Plugin(
        id="example.org/webhook/syslog/v1",
        version="0.1.0",
        description="Ended jobs as syslog messages",
        provides=[Syslog()],
    )
)

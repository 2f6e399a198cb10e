#!/usr/bin/env python3
"""A scheduler: a device goes to a node of its own site. The site is the name up to the first `-`
(`hq-sw1` to `hq-node-2`); where the site has no room, the emptiest node takes it."""

from netpulse_plugin import Plugin, Scheduler, run


class BySite(Scheduler):
    name = "by_site"
    examples = {
        "/scheduler/node_select": {
            "nodes": [{"hostname": "hq-node-1", "count": 0, "capacity": 10, "queue": "NodeQ_hq-node-1"}],
            "host": "hq-sw1",
        }
    }

    def select(self, nodes, host):
        site = host.partition("-")[0]
        free = [node for node in nodes if node.free > 0]
        near = [node for node in free if node.hostname.partition("-")[0] == site]
        best = max(near or free, key=lambda node: node.free, default=None)
        return best.hostname if best else None


run(
    Plugin(
        id="example.org/scheduler/by_site/v1",
        version="0.1.0",
        description="Devices to the nodes of their site",
        provides=[BySite()],
    )
)

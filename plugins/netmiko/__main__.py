"""The plugin `netmiko_py`."""

from netmiko_py.driver import NetmikoDriver
from netpulse_plugin import Plugin, run

driver = NetmikoDriver()
run(
    Plugin(
        id="netpulse.example/driver/netmiko_py/v1",
        version="0.1.0",
        description="Every device type of Netmiko, by the real Netmiko in Python",
        provides=[driver],
        configure=driver.configure,
        max_calls=512,
    )
)

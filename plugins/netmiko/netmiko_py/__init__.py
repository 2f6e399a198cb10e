"""The `netmiko_py` driver: the real Netmiko, for the device types that NetPulse has no platform for."""

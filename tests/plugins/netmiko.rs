//! The plugin `netmiko_py` beside the native driver, on the same devices.

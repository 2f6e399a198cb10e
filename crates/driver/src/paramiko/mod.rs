//! The `paramiko` driver.

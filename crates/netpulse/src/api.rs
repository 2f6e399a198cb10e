//! The server as the commands see it: connecting by flags and profile, and failures in words.

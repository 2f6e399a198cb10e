//! Points in time: microseconds in UTC inside, ISO 8601 with the site's offset outside.

use std::fmt;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Serialize};

/// Microseconds since 1970-01-01 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// Now, by the system clock.
    #[must_use]
    pub fn now() -> Self {
        Self(Utc::now().timestamp_micros())
    }

    /// This point plus `seconds` (which may be negative).
    #[must_use]
    pub fn plus_seconds(self, seconds: i64) -> Self {
        Self(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// This point plus a duration.
    #[must_use]
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)))
    }

    /// Seconds from `earlier` to this point, to the microsecond; negative when it lies before.
    #[must_use]
    #[allow(clippy::cast_precision_loss)]
    pub fn seconds_since(self, earlier: Self) -> f64 {
        (self.0.saturating_sub(earlier.0)) as f64 / 1e6
    }

    /// Parses ISO 8601 (`2026-02-03T04:05:06Z`, any offset), a bare date, or Unix seconds.
    ///
    /// # Errors
    /// A sentence that names the accepted forms.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Ok(at) = DateTime::parse_from_rfc3339(text) {
            return Ok(Self(at.timestamp_micros()));
        }
        if let Ok(date) = text.parse::<chrono::NaiveDate>() {
            return Ok(Self(date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp_micros()));
        }
        if let Ok(local) = text.parse::<chrono::NaiveDateTime>() {
            return Ok(Self(local.and_utc().timestamp_micros()));
        }
        if let Ok(seconds) = text.parse::<i64>() {
            return Ok(Self(seconds.saturating_mul(1_000_000)));
        }
        Err(format!("`{text}` is no time: give ISO 8601 (2026-02-03T04:05:06Z), a date, or Unix seconds"))
    }
}

/// The zone of output timestamps: `TZ` as an IANA name, read once; anything else means UTC.
fn zone() -> chrono_tz::Tz {
    static ZONE: std::sync::OnceLock<chrono_tz::Tz> = std::sync::OnceLock::new();
    *ZONE.get_or_init(|| {
        std::env::var("TZ").ok().and_then(|name| name.parse().ok()).unwrap_or(chrono_tz::Tz::UTC)
    })
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match DateTime::<Utc>::from_timestamp_micros(self.0) {
            Some(at) => f.write_str(&at.with_timezone(&zone()).to_rfc3339_opts(SecondsFormat::Micros, false)),
            None => write!(f, "{}us", self.0),
        }
    }
}

impl Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_back_what_it_writes() {
        let at = Timestamp(1_770_091_506_789_012);
        let text = at.to_string();
        assert!(text.contains(".789012"), "{text}");
        assert_eq!(Timestamp::parse(&text).unwrap(), at);
        assert_eq!(Timestamp::parse("2026-02-03").unwrap().to_string().get(..10), Some("2026-02-03"));
        assert!(Timestamp::parse("yesterday").is_err());
    }
}

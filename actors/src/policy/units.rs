//! Durations as `"1s 500ms"` and sizes as `"64KiB"`, in every config and every answer.

/// `#[serde(with = "duration")]`: a human duration.
pub(super) mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|why| {
            serde::de::Error::custom(format!(
                "{text:?} is no duration ({why}); write it like \"500ms\", \"1s\" or \"2m\""
            ))
        })
    }
}

/// `#[serde(with = "bytes")]`: a human size, or a plain number of bytes.
pub(super) mod bytes {
    use bytesize::ByteSize;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&ByteSize(*bytes as u64))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let size = ByteSize::deserialize(deserializer).map_err(|why| {
            serde::de::Error::custom(format!("no size in bytes ({why}); write it like 65536, \"64KiB\" or \"16MiB\""))
        })?;
        usize::try_from(size.as_u64()).map_err(serde::de::Error::custom)
    }
}

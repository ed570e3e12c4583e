//! Durations as `"1s 500ms"` and sizes as `"64KiB"`, in every config and every answer.
//!
//! What is written reads back as the same value: neither is ever rounded.
//!
//! ```
//! use std::time::Duration;
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct Limits {
//!     #[serde(with = "headworks_actors::units::duration")]
//!     patience: Duration,
//!     #[serde(with = "headworks_actors::units::bytes")]
//!     room: usize,
//! }
//! let limits: Limits = serde_json::from_str(r#"{"patience": "1500ms", "room": 1536}"#)?;
//! assert_eq!(serde_json::to_string(&limits)?, r#"{"patience":"1s 500ms","room":"1536B"}"#);
//! # Ok::<(), serde_json::Error>(())
//! ```

/// `#[serde(with = "duration")]`: a human duration.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(*duration))
    }

    /// # Errors
    /// A sentence with examples of what is valid.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_duration(&text).map_err(|why| {
            serde::de::Error::custom(format!(
                "{text:?} is no duration ({why}); write it like \"500ms\", \"1s\" or \"2m\""
            ))
        })
    }
}

/// `#[serde(with = "duration_or_never")]`: a human duration, or `"never"`.
pub mod duration_or_never {
    use std::time::Duration;

    use serde::de::IntoDeserializer;
    use serde::{Deserialize, Deserializer, Serializer};

    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&display(*duration))
    }

    /// The duration, or `never`.
    #[must_use]
    pub fn display(duration: Option<Duration>) -> String {
        duration.map_or_else(|| "never".to_owned(), |duration| humantime::format_duration(duration).to_string())
    }

    /// # Errors
    /// A sentence with examples of what is valid.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        match String::deserialize(deserializer)?.as_str() {
            "never" => Ok(None),
            text => super::duration::deserialize(text.into_deserializer()).map(Some),
        }
    }
}

/// `#[serde(with = "bytes")]`: a human size, or a plain number of bytes.
pub mod bytes {
    use std::fmt;

    use bytesize::ByteSize;
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    /// # Errors
    /// Only those of the serializer.
    pub fn serialize<S: Serializer>(bytes: &usize, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&display(*bytes))
    }

    /// The size in the largest unit that says it exactly: `"64KiB"`, `"1000B"`.
    #[must_use]
    pub fn display(bytes: usize) -> String {
        let units = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)];
        let exact = units.into_iter().find(|(_, shift)| bytes > 0 && (bytes as u64).is_multiple_of(1 << shift));
        exact.map_or_else(|| format!("{bytes}B"), |(unit, shift)| format!("{}{unit}", bytes as u64 >> shift))
    }

    /// # Errors
    /// A sentence with examples of what is valid.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        deserializer.deserialize_any(Size)
    }

    struct Size;

    fn no_size<E: Error>(what: impl fmt::Display) -> E {
        E::custom(format!("{what} is no size in bytes; write it like 65536, \"64KiB\" or \"16MiB\""))
    }

    impl Visitor<'_> for Size {
        type Value = usize;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a size in bytes, like 65536, \"64KiB\" or \"16MiB\"")
        }

        fn visit_u64<E: Error>(self, bytes: u64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(|_| no_size(bytes))
        }

        fn visit_i64<E: Error>(self, bytes: i64) -> Result<usize, E> {
            usize::try_from(bytes).map_err(|_| no_size(bytes))
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<usize, E> {
            let size: ByteSize = text.parse().map_err(|_| no_size(format_args!("{text:?}")))?;
            self.visit_u64(size.as_u64())
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Size(#[serde(with = "super::bytes")] usize);

    proptest! {
        #[test]
        fn a_size_reads_back_as_it_was_written(bytes in prop_oneof![0..5_000_000usize, 0..=1usize << 50]) {
            let written = serde_json::to_string(&Size(bytes)).unwrap();
            prop_assert_eq!(serde_json::from_str::<Size>(&written).unwrap(), Size(bytes), "{}", written);
        }
    }

    #[test]
    fn a_size_is_written_in_the_largest_unit_that_is_exact() {
        for (bytes, text) in [(0, "0B"), (1000, "1000B"), (1024, "1KiB"), (3 << 19, "1536KiB"), (1 << 30, "1GiB")] {
            assert_eq!(super::bytes::display(bytes), text);
        }
    }

    #[test]
    fn what_is_no_size_is_told_by_itself_and_with_what_is() {
        for (written, says) in [
            ("-1", "-1 is no size in bytes; write it like 65536"),
            ("\"5 parsecs\"", "\"5 parsecs\" is no size in bytes; write it like"),
            ("\"\"", "\"\" is no size in bytes"),
            ("true", "invalid type: boolean `true`, expected a size in bytes, like 65536"),
        ] {
            let why = serde_json::from_str::<Size>(written).unwrap_err().to_string();
            assert!(why.starts_with(says), "{why}");
        }
    }
}

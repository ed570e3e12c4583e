use std::fmt;
use std::str::FromStr;

/// The ways in which a line can be broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bad {
    /// Cut off in the middle.
    Json,
    /// An object without a tenant.
    NoTenant,
    /// A tenant that is a number.
    TenantNotAString,
    /// A tenant whose name breaks the grammar.
    TenantId,
    /// Nothing at all.
    EmptyLine,
    /// Bytes that are no UTF-8, within a string.
    Utf8,
    /// A NUL byte within a string.
    Nul,
    /// Valid JSON, 1,000 levels deep.
    Deep,
}

impl Bad {
    /// Every kind, in the order in which they take turns.
    pub const ALL: [Self; 8] = [
        Self::Json,
        Self::NoTenant,
        Self::TenantNotAString,
        Self::TenantId,
        Self::EmptyLine,
        Self::Utf8,
        Self::Nul,
        Self::Deep,
    ];

    /// Appends such a line, without its newline. `tenant` is a good name, for the kinds that have one.
    pub fn write(self, tenant: &[u8], out: &mut Vec<u8>) {
        const LEVELS: usize = 1_000;
        let (before, name, after): (&[u8], &[u8], &[u8]) = match self {
            Self::Json => (b"{\"tenant\":\"", tenant, b"\",\"line\":\"cut o"),
            Self::NoTenant => (b"{\"level\":\"info\",\"line\":\"whose am I?\"}", b"", b""),
            Self::TenantNotAString => (b"{\"tenant\":42,\"line\":\"a number\"}", b"", b""),
            Self::TenantId => (b"{\"tenant\":\"../", tenant, b"\",\"line\":\"a path\"}"),
            Self::EmptyLine => (b"", b"", b""),
            Self::Utf8 => (b"{\"tenant\":\"", tenant, b"\",\"line\":\"\xC3\x28\xFF\"}"),
            Self::Nul => (b"{\"tenant\":\"", tenant, b"\",\"line\":\"a\0b\"}"),
            Self::Deep => (b"{\"tenant\":\"", tenant, b"\",\"line\":"),
        };
        out.extend_from_slice(before);
        out.extend_from_slice(name);
        out.extend_from_slice(after);
        if self == Self::Deep {
            out.resize(out.len() + LEVELS, b'[');
            out.resize(out.len() + LEVELS, b']');
            out.push(b'}');
        }
    }
}

/// A share of all lines, given in percent, exact to the billionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    billionths: u32,
}

const WHOLE: u32 = 1_000_000_000;

/// A text that is no share in percent.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is no share in percent: 0 is, and every number from 0.0000001 to 100")]
pub struct InvalidShare(String);

impl FromStr for Share {
    type Err = InvalidShare;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.parse::<f64>() {
            Ok(percent) if percent == 0.0 || (1e-7..=100.0).contains(&percent) => {
                // Within 0 to a billion by the line above.
                Ok(Self { billionths: (percent * 1e7).round() as u32 })
            }
            _ => Err(InvalidShare(text.to_owned())),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (f64::from(self.billionths) / 1e7).fmt(f)
    }
}

/// Says which lines make up a share: of any `n` lines from the first on, `n * share` rounded down, evenly spread.
#[derive(Debug)]
pub(super) struct Turns {
    share: Share,
    owed: u32,
}

impl Turns {
    pub(super) fn of(share: Share) -> Self {
        Self { share, owed: 0 }
    }

    /// Whether the next line belongs to the share.
    pub(super) fn next(&mut self) -> bool {
        self.owed += self.share.billionths;
        let due = self.owed >= WHOLE;
        if due {
            self.owed -= WHOLE;
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_share_is_met_exactly_at_every_line(hundredths in 0..=10_000_u32, lines in 1..3_000_u64) {
            let share: Share = format!("{}", f64::from(hundredths) / 100.0).parse().unwrap();
            let mut turns = Turns::of(share);
            let due = (0..lines).filter(|_| turns.next()).count() as u64;
            prop_assert_eq!(due, lines * u64::from(hundredths) / 10_000);
        }
    }

    #[test]
    fn what_is_no_share_is_refused_rather_than_rounded_away() {
        for bad in ["-1", "100.1", "nan", "", "1%", "0.00000001"] {
            assert!(bad.parse::<Share>().is_err(), "{bad}");
        }
        assert_eq!("0.5".parse::<Share>().unwrap().to_string(), "0.5");
    }
}

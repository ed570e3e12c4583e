use std::borrow::Cow;
use std::str::FromStr;

use headworks_actors::TenantId;
use serde::{Deserialize, Serialize};

use syslog_loose::Message;

/// The longest part of a name that is kept where it is made a tenant's.
const KEPT: usize = 55;

/// What of a message names its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SyslogTenant {
    /// The host. Written `host`.
    Host,
    /// The program, or the tag. Written `app_name`.
    AppName,
    /// A parameter of the structured data. Written `ID[NAME]`, as `meta@32473[tenant]`.
    StructuredData {
        /// Of which element.
        id: String,
        /// Which parameter.
        name: String,
    },
}

impl FromStr for SyslogTenant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "is {text:?}, but must be \"host\", \"app_name\" or a parameter of the structured data, like \"meta@32473[tenant]\""
            )
        };
        let is_name = |name: &str| {
            (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_graphic() && !b"=]\"".contains(&b))
        };
        match text {
            "host" => Ok(Self::Host),
            "app_name" => Ok(Self::AppName),
            _ => {
                let (id, name) = text.strip_suffix(']').and_then(|rest| rest.rsplit_once('[')).ok_or_else(wrong)?;
                if !is_name(id) || !is_name(name) {
                    return Err(wrong());
                }
                Ok(Self::StructuredData { id: id.to_owned(), name: name.to_owned() })
            }
        }
    }
}

impl SyslogTenant {
    /// The name in a message, if it has one.
    pub(super) fn of<'m>(&self, message: &Message<&'m str>) -> Option<Cow<'m, str>> {
        match self {
            Self::Host => message.hostname.map(Cow::Borrowed),
            Self::AppName => message.appname.map(Cow::Borrowed),
            Self::StructuredData { id, name } => {
                let element = message.structured_data.iter().find(|element| element.id == id)?;
                let (_, value) = element.params().find(|(of, _)| *of == name)?;
                Some(Cow::Owned(value))
            }
        }
    }
}

/// What becomes of a message whose tenant has a name that no tenant can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InvalidTenantName {
    /// The name is made one: its beginning, and a number made of the whole.
    #[default]
    Map,
    /// The message is refused, and kept as a dead letter.
    Refuse,
}

/// The name itself where a tenant can have it. Else its beginning with `_` for each character that cannot be, and a number made of the
/// whole name, so that no two names become one: `fe80::1` is `fe80__1-` and eight hexadecimal digits.
pub(super) fn mapped(name: Cow<'_, str>) -> Cow<'_, str> {
    if TenantId::new(&name).is_ok() {
        return name;
    }
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let is_kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let mut kept: String = name.chars().take(KEPT).map(|c| if is_kept(&c) { c } else { '_' }).collect();
    if !kept.starts_with(|c: char| c.is_ascii_alphanumeric()) {
        kept.replace_range(..kept.len().min(1), "x");
    }
    Cow::Owned(format!("{kept}-{hash:08x}"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_valid_name_stays_and_two_invalid_ones_stay_two() {
        assert_eq!(mapped("acme.eu".into()), "acme.eu");
        assert!(mapped("fe80::1".into()).starts_with("fe80__1-"));
        assert_ne!(mapped("a/b".into()), mapped("a:b".into()));
    }

    #[test]
    fn what_names_the_tenant_is_read_as_it_is_written() {
        assert_eq!("host".parse(), Ok(SyslogTenant::Host));
        let expected = SyslogTenant::StructuredData { id: "meta@1".into(), name: "t".into() };
        assert_eq!("meta@1[t]".parse(), Ok(expected));
        for bad in ["", "Host", "meta", "meta[", "[x]", "a[b", "a b[c]"] {
            assert!(bad.parse::<SyslogTenant>().is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_becomes_one_that_a_tenant_can_have(name in ".{1,100}") {
            prop_assert!(TenantId::new(&mapped(name.into())).is_ok());
        }
    }
}

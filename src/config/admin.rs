use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::check::Problem;

/// `[admin]`: the HTTP API over TCP. What the control socket in the data directory answers needs none of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where it listens: an address and a port; port 0 takes any that is free; `None`, written as an empty string, turns it
    /// off. Default `127.0.0.1:7401`.
    #[serde(with = "address")]
    pub listen: Option<SocketAddr>,
    /// The file with the token that every request must bear; nobody but its owner and group may read it. A relative path
    /// starts at the working directory. Needed where other machines can reach the API. Default: no token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token_file: Option<PathBuf>,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self { listen: Some((Ipv4Addr::LOCALHOST, 7401).into()), token_file: None }
    }
}

pub(super) fn check(admin: &AdminConfig) -> Result<(), Problem> {
    let path = admin.token_file.as_ref().map(|path| path.to_str());
    if path.is_some_and(|path| path.is_none_or(|path| path.is_empty() || path.contains('\0'))) {
        return Err(Problem::new(["admin", "token_file"], "must be the path of a file in UTF-8 that is not empty"));
    }
    let Some(listen) = admin.listen else { return Ok(()) };
    // An IPv4 address in IPv6's clothes is the same place.
    if admin.token_file.is_none() && !listen.ip().to_canonical().is_loopback() {
        let what = format!(
            "is {listen}, which other machines can reach: put a token into a file that only this user can read and name it \
             with admin.token_file, or listen on 127.0.0.1 or [::1]"
        );
        return Err(Problem::new(["admin", "listen"], what));
    }
    Ok(())
}

/// An address, or nothing.
mod address {
    use super::*;

    pub(super) fn serialize<S: Serializer>(listen: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match listen {
            Some(listen) => serializer.collect_str(listen),
            None => serializer.serialize_str(""),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is no address with a port; write it like \"127.0.0.1:7401\" or \"[::1]:7401\", or \"\" for no API over TCP"
            ))
        })
    }
}

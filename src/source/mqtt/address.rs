//! Where a broker is. Pure.

use std::str::FromStr;

/// `mqtt://HOST[:PORT]`, or `mqtts://` where the connection is encrypted. The ports are 1883 and 8883 where none is said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MqttUrl {
    /// A name, or an address.
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) is_encrypted: bool,
}

impl MqttUrl {
    /// Whether the connection is encrypted.
    #[must_use]
    pub fn is_encrypted(&self) -> bool {
        self.is_encrypted
    }
}

impl FromStr for MqttUrl {
    type Err = String;

    /// The reason does not repeat the text: a password may stand in it.
    fn from_str(text: &str) -> Result<Self, String> {
        let (is_encrypted, rest) = match text.split_once("://") {
            Some(("mqtt", rest)) => (false, rest),
            Some(("mqtts", rest)) => (true, rest),
            _ => return Err("must begin with mqtt:// or mqtts://".to_owned()),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        if rest.contains('@') {
            return Err("must not have a user or a password in it: there are username and password_file".to_owned());
        }
        if rest.contains(['/', '?', '#', ' ']) {
            return Err("must be a host and a port alone, as in mqtt://broker:1883".to_owned());
        }
        let default = if is_encrypted { 8883 } else { 1883 };
        let (host, port) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, port)) => (host, Some(port.strip_prefix(':').unwrap_or_default())),
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(default), |port| port.parse());
        let port = port.ok().filter(|port| *port > 0).ok_or("must have a port from 1 to 65535 where it has one")?;
        if host.is_empty() {
            return Err("must name a host".to_owned());
        }
        Ok(Self { host: host.to_owned(), port, is_encrypted })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_a_host_and_a_port() {
        for (text, host, port, is_encrypted) in [
            ("mqtt://broker", "broker", 1883, false),
            ("mqtts://broker.example/", "broker.example", 8883, true),
            ("mqtt://10.0.0.1:1", "10.0.0.1", 1, false),
            ("mqtt://[::1]:7", "::1", 7, false),
            ("mqtts://[::1]", "::1", 8883, true),
        ] {
            assert_eq!(text.parse(), Ok(MqttUrl { host: host.into(), port, is_encrypted }), "{text}");
        }
        for bad in ["broker:1883", "http://a", "mqtt://", "mqtt://a:b", "mqtt://a:0", "mqtt://a/b", "mqtt://u:secret@a"]
        {
            let why = bad.parse::<MqttUrl>().unwrap_err();
            assert!(!why.contains("secret"), "{why}");
        }
    }
}

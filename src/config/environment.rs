use super::error::Place;
use super::layers::Setting;
use super::{Config, ConfigError};
use crate::FAULT_VARIABLE;

/// What every variable of ours begins with.
const PREFIX: &str = "HEADWORKS__";

/// The variables of this process that begin with `HEADWORKS_`, for [`Config::load`]; but for [`FAULT_VARIABLE`], where there is
/// one: it is no setting.
///
/// A value that is not UTF-8 comes with U+FFFD in the place of what is not, and is refused there.
pub fn environment() -> impl Iterator<Item = (String, String)> {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned())
    };
    std::env::vars_os()
        .map(text)
        .filter(|(name, _)| name.starts_with("HEADWORKS_") && FAULT_VARIABLE.is_none_or(|fault| name != fault))
}

/// The variables that are meant for us, outer levels first, whatever order the system keeps them in.
pub(super) fn variables(env: impl IntoIterator<Item = (String, String)>) -> Result<Vec<Setting>, ConfigError> {
    let mut found = vec![];
    for (name, value) in env {
        if !name.starts_with("HEADWORKS_") || is_service_link(&name, &value) {
            continue;
        }
        let Some(levels) = name.strip_prefix(PREFIX) else { return Err(not_understood(&name)) };
        let path: Vec<_> = levels.split("__").map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(not_understood(&name));
        }
        if value.contains('\u{fffd}') {
            return Err(ConfigError::new(Place::Named(name), None, "the value is not UTF-8"));
        }
        found.push(Setting { name, path, value });
    }
    let order = |variable: &Setting| (variable.path.join("__").to_lowercase(), variable.name.clone());
    found.sort_by_cached_key(order);
    Ok(found)
}

fn not_understood(name: &str) -> ConfigError {
    let mut sentence = "this variable is not understood: a key is set by HEADWORKS__TABLE__KEY, with two underscores \
                        between the levels, and but for those of a Kubernetes service no other variable may begin with \
                        HEADWORKS_"
        .to_owned();
    if let Some(meant) = meant(name) {
        sentence += &format!("; did you mean {meant}?");
    }
    ConfigError::new(Place::Named(name.to_owned()), None, sentence)
}

/// The variable of a key that the name ends with: `HEADWORKS__DAEMON__DATA_DIR` for `HEADWORKS_DATA_DIR`.
fn meant(name: &str) -> Option<String> {
    let words = |name: &str| -> Vec<String> {
        let name = name.strip_prefix("HEADWORKS").unwrap_or(name).to_uppercase();
        name.split('_').filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let wanted = words(name);
    let mut known = vec![];
    leaves(&toml::Table::try_from(Config::default()).ok()?, PREFIX, &mut known);
    known.into_iter().find(|known| !wanted.is_empty() && words(known).ends_with(&wanted))
}

fn leaves(table: &toml::Table, prefix: &str, found: &mut Vec<String>) {
    for (key, value) in table {
        let name = format!("{prefix}{}", key.to_uppercase());
        match value {
            toml::Value::Table(inner) => leaves(inner, &format!("{name}__"), found),
            _ => found.push(name),
        }
    }
}

/// Whether Kubernetes made this variable: it announces each service to every pod beside it, so one named `headworks`
/// or `headworks-...` must not keep the daemon from starting.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = |parts: &[&str]| match parts {
        [port, "TCP" | "UDP" | "SCTP"] | [port, "TCP" | "UDP" | "SCTP", "PORT" | "PROTO" | "ADDR"] => {
            port.parse::<u16>().is_ok()
        }
        _ => false,
    };
    let is_link = name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_port(&rest.split('_').collect::<Vec<_>>()));
    is_link && !name.starts_with(PREFIX)
}

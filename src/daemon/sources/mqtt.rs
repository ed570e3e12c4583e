use super::{DaemonError, Opened, Opening, decoder};
use crate::config::{MqttPayload as Payload, MqttVersion as Version};
use crate::source::{MqttOptions, MqttPayload, MqttSource, MqttVersion};

/// A subscription at a broker, which may be away.
pub(super) fn open(opening: &Opening<'_>) -> Result<Opened, DaemonError> {
    let (name, source) = (opening.name, opening.source);
    let refused = |why: String| DaemonError::Subscription { name: name.to_owned(), why };
    let url = source.url.as_deref().unwrap_or_default().parse().map_err(|why| refused(format!("url {why}")))?;
    let topic = source.topic.as_deref().unwrap_or_default().parse();
    let topic = topic.map_err(|why| refused(format!("topic {why}")))?;
    let client_id = source.client_id.clone().unwrap_or_else(|| format!("headworks-{name}"));
    let options = MqttOptions {
        version: match source.version {
            Version::V5 => MqttVersion::V5,
            Version::V311 => MqttVersion::V311,
        },
        qos: source.qos,
        username: source.username.clone(),
        password_file: source.password_file.clone(),
        ca_file: source.ca_file.clone(),
        keep_alive: source.keep_alive,
        receive_max: source.receive_max,
        payload: match source.payload {
            Payload::Event => MqttPayload::Event,
            Payload::Lines => MqttPayload::Lines,
        },
        max_frame: source.max_frame,
        ack: source.ack,
        unique: source.unique_messages,
        ..MqttOptions::new(url, topic, client_id)
    };
    let mqtt = MqttSource::new(name, decoder(opening.config), options);
    Ok((None, Box::new(mqtt.map_err(|why| refused(why.to_string()))?)))
}

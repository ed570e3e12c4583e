//! What is published in a stream, as somebody who is not us reads it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::nats::Nats;
use super::{Bodies, Place};

/// A message of a stream, as somebody who is not us reads it.
#[derive(Debug)]
pub(crate) struct Published {
    pub(crate) subject: String,
    /// In its stream.
    pub(crate) number: u64,
    pub(crate) headers: BTreeMap<String, String>,
    /// What its lines stand for.
    pub(crate) bodies: Vec<Vec<u8>>,
}

impl Published {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// The file of a place that says where its events are published: the URL and the stream.
const PUBLISHES: &str = "publishes";

/// The events that are published for a place, by tenant.
#[track_caller]
pub(crate) fn stored(place: &Place) -> Bodies {
    let Ok(to) = std::fs::read_to_string(place.path(PUBLISHES)) else { return Bodies::new() };
    let (url, stream) = to.split_once(' ').unwrap();
    Nats::events_at(url, stream)
}

impl Nats {
    /// What the daemon of the place publishes is in this stream.
    pub(crate) fn publishes(&self, place: &Place, stream: &str) {
        place.write(PUBLISHES, format!("{} {stream}", self.url()));
    }

    /// All that is in a stream, in its order.
    #[track_caller]
    pub(crate) fn published(&self, stream: &str) -> Vec<Published> {
        Self::published_at(&self.url(), stream)
    }

    #[track_caller]
    fn published_at(url: &str, stream: &str) -> Vec<Published> {
        let told = Self::client_at(url, "published", &[stream]).ended().succeeded().text();
        let told: Vec<Value> = serde_json::from_str(&told).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let bytes = |hex: &Value| {
            let hex = hex.as_str().unwrap().as_bytes();
            let digit = |byte: u8| u8::try_from((byte as char).to_digit(16).unwrap()).unwrap();
            hex.chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
        };
        let message = |message: Value| Published {
            subject: text(&message["subject"]),
            number: message["number"].as_u64().unwrap(),
            headers: message["headers"].as_object().into_iter().flatten().map(|(k, v)| (k.clone(), text(v))).collect(),
            bodies: message["bodies"].as_array().unwrap().iter().map(bytes).collect(),
        };
        told.into_iter().map(message).collect()
    }

    /// The events of the tenants in a stream, by its messages alone.
    #[track_caller]
    pub(crate) fn events(&self, stream: &str) -> Bodies {
        Self::events_at(&self.url(), stream)
    }

    #[track_caller]
    fn events_at(url: &str, stream: &str) -> Bodies {
        let mut events = Bodies::new();
        for message in Self::published_at(url, stream).into_iter().filter(|message| !message.bodies.is_empty()) {
            events.entry(message.header("Headworks-Tenant").to_owned()).or_default().extend(message.bodies);
        }
        events
    }
}

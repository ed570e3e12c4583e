//! The packets of both versions, as far as one who subscribes needs them. Reading and writing is the work of `rumqttc`.

use bytes::{Bytes, BytesMut};
use rumqttc_v4::mqttbytes::{Error as Error4, QoS, v4};
use rumqttc_v5::mqttbytes::{Error as Error5, QoS as QoS5, v5};

use super::{MqttOptions, MqttVersion};

/// Packets that are the same in both versions.
pub(super) const PING: [u8; 2] = [0xc0, 0];
pub(super) const DISCONNECT: [u8; 2] = [0xe0, 0];

/// The number of the one request there is.
const SUBSCRIBE_ID: u16 = 1;

/// How long a broker of version 5 keeps the session of a client that is away, in seconds: a week. One of 3.1.1 decides by itself.
const SESSION_EXPIRES: u32 = 7 * 24 * 3600;

/// What a broker says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// Whether it has the session still, or why it refuses; and the keep alive that it wants, in seconds.
    Connected(Result<bool, String>, Option<u16>),
    /// The quality of service that it grants, or why none.
    Subscribed(Result<u8, String>),
    Publish(Publish),
    /// It ends the connection, for this reason.
    Disconnect(String),
    Pong,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Publish {
    /// It was sent before.
    pub(super) again: bool,
    /// To be acknowledged by it; none at quality of service 0.
    pub(super) id: Option<u16>,
    pub(super) topic: Bytes,
    pub(super) payload: Bytes,
}

fn qos(qos: u8) -> QoS {
    if qos == 0 { QoS::AtMostOnce } else { QoS::AtLeastOnce }
}

pub(super) fn connect(options: &MqttOptions, password: Option<Bytes>, bytes: &mut BytesMut) -> Result<(), String> {
    let keep_alive = u16::try_from(options.keep_alive.as_secs()).unwrap_or(u16::MAX);
    let client_id = options.client_id.clone();
    match options.version {
        MqttVersion::V311 => {
            let mut connect = v4::Connect::new(client_id);
            (connect.keep_alive, connect.clean_session) = (keep_alive, false);
            match (&options.username, password) {
                (Some(username), Some(password)) => drop(connect.set_credentials(username.clone(), password)),
                (Some(username), None) => drop(connect.set_username(username.clone())),
                (None, _) => {}
            }
            v4::Packet::Connect(connect).write(bytes, usize::MAX).map_err(|why| why.to_string())?;
        }
        MqttVersion::V5 => {
            let properties = v5::ConnectProperties {
                session_expiry_interval: Some(SESSION_EXPIRES),
                receive_maximum: Some(options.receive_max),
                ..v5::ConnectProperties::new()
            };
            let connect = v5::Connect { keep_alive, client_id, clean_start: false, properties: Some(properties) };
            let auth = match (options.username.clone(), password) {
                (Some(username), Some(password)) => v5::ConnectAuth::UsernamePassword { username, password },
                (Some(username), None) => v5::ConnectAuth::Username { username },
                (None, _) => v5::ConnectAuth::None,
            };
            v5::Packet::Connect(connect, None, auth).write(bytes, None).map_err(|why| why.to_string())?;
        }
    }
    Ok(())
}

pub(super) fn subscribe(options: &MqttOptions, bytes: &mut BytesMut) -> Result<(), String> {
    let filter = options.topic.filter().to_owned();
    match options.version {
        MqttVersion::V311 => {
            let mut subscribe = v4::Subscribe::new(filter, qos(options.qos));
            subscribe.pkid = SUBSCRIBE_ID;
            v4::Packet::Subscribe(subscribe).write(bytes, usize::MAX).map_err(|why| why.to_string())?;
        }
        MqttVersion::V5 => {
            let qos = if options.qos == 0 { QoS5::AtMostOnce } else { QoS5::AtLeastOnce };
            let mut filter = v5::SubscribeFilter::new(filter, qos);
            // What is retained comes once, and not with each start.
            filter.retain_forward_rule = v5::RetainForwardRule::OnNewSubscribe;
            let mut subscribe = v5::Subscribe::new(filter, None);
            subscribe.pkid = SUBSCRIBE_ID;
            v5::Packet::Subscribe(subscribe).write(bytes, None).map_err(|why| why.to_string())?;
        }
    }
    Ok(())
}

/// Of the common kind, and the same in both versions.
pub(super) fn acknowledge(id: u16, bytes: &mut Vec<u8>) {
    bytes.extend([0x40, 2]);
    bytes.extend(id.to_be_bytes());
}

/// How a packet begins: its first byte, where its own bytes begin, and how many they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) first: u8,
    pub(super) start: usize,
    pub(super) length: usize,
}

impl Head {
    pub(super) fn is_publish(self) -> bool {
        self.first >> 4 == 3
    }

    /// None as long as there is too little of it.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Self>, String> {
        let Some(first) = bytes.first() else { return Ok(None) };
        let Some((length, used)) = number(&bytes[1..])? else { return Ok(None) };
        Ok(Some(Self { first: *first, start: 1 + used, length }))
    }
}

/// A number of variable length, and how long it is.
fn number(bytes: &[u8]) -> Result<Option<(usize, usize)>, String> {
    let mut number = 0;
    for (nth, byte) in bytes.iter().take(4).enumerate() {
        number |= usize::from(byte & 0x7f) << (7 * nth);
        if byte & 0x80 == 0 {
            return Ok(Some((number, nth + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err("it sent a packet whose length is none".to_owned()) }
}

/// What stands before the payload of a message that is too large to be read whole: the message without its payload, and where that
/// begins. None as long as there is too little of it.
pub(super) fn beginning(version: MqttVersion, head: Head, bytes: &[u8]) -> Result<Option<(Publish, usize)>, String> {
    let bad = || "it sent a message whose lengths do not fit".to_owned();
    let two = |at: usize| Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]));
    let Some(topic) = two(head.start).map(usize::from) else { return Ok(None) };
    let mut at = head.start + 2 + topic;
    let is_acknowledged = head.first & 0b110 != 0;
    let id = is_acknowledged.then(|| two(at));
    if id == Some(None) {
        return Ok(None);
    }
    at += if is_acknowledged { 2 } else { 0 };
    if version == MqttVersion::V5 {
        let Some((properties, used)) = number(bytes.get(at..).unwrap_or_default())? else { return Ok(None) };
        at += used + properties;
    }
    if at > head.start + head.length {
        return Err(bad());
    }
    if at > bytes.len() {
        return Ok(None);
    }
    let topic = Bytes::copy_from_slice(&bytes[head.start + 2..head.start + 2 + topic]);
    let again = head.first & 0b1000 != 0;
    Ok(Some((Publish { again, id: id.flatten(), topic, payload: Bytes::new() }, at)))
}

/// Takes the next whole packet out of `bytes`, if there is one; packets that mean nothing here are passed over.
pub(super) fn read(version: MqttVersion, bytes: &mut BytesMut) -> Result<Option<Incoming>, String> {
    let malformed = |why: &dyn std::fmt::Display| format!("it sent what is no packet: {why}");
    match version {
        MqttVersion::V311 => match v4::Packet::read(bytes, usize::MAX) {
            Ok(packet) => of_v4(packet).map(Some),
            Err(Error4::InsufficientBytes(_)) => Ok(None),
            Err(why) => Err(malformed(&why)),
        },
        MqttVersion::V5 => match v5::Packet::read(bytes, None) {
            Ok(packet) => of_v5(packet).map(Some),
            Err(Error5::InsufficientBytes(_)) => Ok(None),
            Err(why) => Err(malformed(&why)),
        },
    }
}

fn of_v4(packet: v4::Packet) -> Result<Incoming, String> {
    Ok(match packet {
        v4::Packet::ConnAck(ack) => {
            use v4::ConnectReturnCode as Code;
            let refused = match ack.code {
                Code::Success => None,
                Code::BadUserNamePassword => Some(CREDENTIALS),
                Code::NotAuthorized => Some(NOT_AUTHORIZED),
                Code::RefusedProtocolVersion => Some(VERSION),
                Code::BadClientId => Some(CLIENT_ID),
                Code::ServiceUnavailable => Some("it is not available"),
            };
            Incoming::Connected(refused.map_or(Ok(ack.session_present), |why| Err(why.to_owned())), None)
        }
        v4::Packet::SubAck(ack) => Incoming::Subscribed(match ack.return_codes.first() {
            Some(v4::SubscribeReasonCode::Success(qos)) => Ok(*qos as u8),
            _ => Err("it does not say why (0x80): as a rule the user may not read it".to_owned()),
        }),
        v4::Packet::Publish(publish) => Incoming::Publish(Publish {
            again: publish.dup,
            id: acknowledged(publish.qos as u8, publish.pkid)?,
            topic: publish.topic,
            payload: publish.payload,
        }),
        v4::Packet::PingResp => Incoming::Pong,
        other => return Err(format!("it sent a packet that has no place here: {:?}", other.packet_type())),
    })
}

fn of_v5(packet: v5::Packet) -> Result<Incoming, String> {
    let with = |what: String, said: Option<String>| match said {
        Some(said) => format!("{what}: {said}"),
        None => what,
    };
    Ok(match packet {
        v5::Packet::ConnAck(ack) => {
            use v5::ConnectReturnCode as Code;
            let properties = ack.properties;
            let keep_alive = properties.as_ref().and_then(|properties| properties.server_keep_alive);
            let said = properties.and_then(|properties| properties.reason_string);
            let refused = match ack.code {
                Code::Success => None,
                Code::BadUserNamePassword => Some(CREDENTIALS.to_owned()),
                Code::NotAuthorized => Some(NOT_AUTHORIZED.to_owned()),
                Code::RefusedProtocolVersion | Code::UnsupportedProtocolVersion => Some(VERSION.to_owned()),
                Code::BadClientId | Code::ClientIdentifierNotValid => Some(CLIENT_ID.to_owned()),
                other => Some(format!("its reason is {other:?}")),
            };
            Incoming::Connected(refused.map_or(Ok(ack.session_present), |why| Err(with(why, said))), keep_alive)
        }
        v5::Packet::SubAck(ack) => {
            let said = ack.properties.and_then(|properties| properties.reason_string);
            Incoming::Subscribed(match ack.return_codes.first() {
                Some(v5::SubscribeReasonCode::Success(qos)) => Ok(*qos as u8),
                Some(v5::SubscribeReasonCode::NotAuthorized) => Err(with("the user may not read it".to_owned(), said)),
                other => Err(with(format!("its reason is {other:?}"), said)),
            })
        }
        v5::Packet::Publish(publish) => Incoming::Publish(Publish {
            again: publish.dup,
            id: acknowledged(publish.qos as u8, publish.pkid)?,
            topic: publish.topic,
            payload: publish.payload,
        }),
        v5::Packet::PingResp => Incoming::Pong,
        v5::Packet::Disconnect(end) => {
            let said = end.properties.and_then(|properties| properties.reason_string);
            let what = match end.reason_code {
                v5::DisconnectReasonCode::SessionTakenOver => {
                    format!("{TAKEN_OVER}: each daemon needs one of its own")
                }
                other => format!("its reason is {other:?}"),
            };
            Incoming::Disconnect(with(what, said))
        }
        other => return Err(format!("it sent a packet that has no place here: {:?}", other.packet_type())),
    })
}

/// What a broker of version 5 says where it gives the session to somebody else.
pub(super) const TAKEN_OVER: &str = "another client came with the same client_id";

const CREDENTIALS: &str = "username and password are not what it expects (username, password_file)";
const NOT_AUTHORIZED: &str = "the user may not connect (username, password_file)";
const VERSION: &str = "it does not speak this version of MQTT (version)";
const CLIENT_ID: &str = "it does not take the client_id";

/// What a message is acknowledged by.
fn acknowledged(qos: u8, id: u16) -> Result<Option<u16>, String> {
    match qos {
        0 => Ok(None),
        1 => Ok(Some(id)),
        _ => Err("it sent a message at quality of service 2, which was not asked for".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const VERSIONS: [MqttVersion; 2] = [MqttVersion::V5, MqttVersion::V311];

    #[test]
    fn what_stands_before_a_large_payload_is_read_without_it() {
        // Quality of service 1, sent again, topic "a/b", number 7; in version 5 with a property of two bytes.
        let old = [0x3a, 0xff, 0xff, 0x03, 0, 3, b'a', b'/', b'b', 0, 7, b'x'];
        let new = [0x3a, 0xff, 0xff, 0x03, 0, 3, b'a', b'/', b'b', 0, 7, 2, 1, 1, b'x'];
        let expected = Publish { again: true, id: Some(7), topic: Bytes::from_static(b"a/b"), payload: Bytes::new() };
        for (version, bytes) in [(MqttVersion::V311, &old[..]), (MqttVersion::V5, &new[..])] {
            let head = Head::read(bytes).unwrap().unwrap();
            assert_eq!((head.start, head.length, head.is_publish()), (4, 65_535, true));
            assert_eq!(beginning(version, head, bytes), Ok(Some((expected.clone(), bytes.len() - 1))));
            for cut in 0..bytes.len() - 1 {
                assert!(beginning(version, head, &bytes[..cut]) == Ok(None), "{version:?} {cut}");
            }
        }
        assert!(Head::read(&[0x30, 0xff, 0xff, 0xff, 0xff]).is_err());
        assert_eq!(Head::read(&[0x30, 0xff]), Ok(None));
    }

    #[test]
    fn a_refusal_is_told_in_words() {
        let read = |version, bytes: &[u8]| read(version, &mut BytesMut::from(bytes)).unwrap().unwrap();
        let Incoming::Connected(Err(why), _) = read(MqttVersion::V311, &[0x20, 2, 0, 5]) else { panic!() };
        assert!(why.contains("password_file"), "{why}");
        let Incoming::Connected(Err(why), _) = read(MqttVersion::V5, &[0x20, 3, 0, 0x84, 0]) else { panic!() };
        assert!(why.contains("(version)"), "{why}");
        let Incoming::Subscribed(Err(why)) = read(MqttVersion::V311, &[0x90, 3, 0, 1, 0x80]) else { panic!() };
        assert!(why.contains("0x80"), "{why}");
        let Incoming::Disconnect(why) = read(MqttVersion::V5, &[0xe0, 2, 0x8e, 0]) else { panic!() };
        assert!(why.contains("client_id"), "{why}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]
        #[test]
        fn whatever_a_broker_sends_is_a_packet_or_refused(
            first in prop::sample::select(vec![0x20_u8, 0x30, 0x32, 0x3a, 0x40, 0x90, 0xd0, 0xe0, 0xf0, 0x00]),
            rest in prop::collection::vec(prop_oneof![0..12_u8, any::<u8>()], 0..60),
        ) {
            for version in VERSIONS {
                let mut bytes = vec![first, u8::try_from(rest.len()).unwrap()];
                bytes.extend(&rest);
                if let Ok(Some(head)) = Head::read(&bytes) {
                    let _ = beginning(version, head, &bytes);
                }
                let _ = read(version, &mut BytesMut::from(&bytes[..]));
            }
        }
    }
}

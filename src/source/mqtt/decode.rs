//! Messages as frames. A message whose topic names its tenant is preceded by that name, and a newline.

use headworks_actors::{Cause, Code, Decoded, Decoder, Json, TenantId};

/// The longest name that is kept: longer than any that a tenant can have.
const LONGEST: usize = 80;

/// Appends a frame, after its length. `tenant` is what the topic names, where it is to name one.
pub(super) fn push(frames: &mut Vec<u8>, tenant: Option<&str>, payload: &[u8]) {
    let tenant = tenant.map(|name| {
        let end = name.floor_char_boundary(LONGEST);
        // A newline in a name would end it early; no tenant has one.
        name[..end].replace('\n', "\u{fffd}") + "\n"
    });
    let tenant = tenant.unwrap_or_default();
    let length = tenant.len() + payload.len();
    // A message of MQTT has at most 256 MiB.
    frames.extend(u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
    frames.extend(tenant.as_bytes());
    frames.extend(payload);
}

/// Reads what [`push`] wrote with a tenant.
pub(super) struct OfTopic(Json);

impl OfTopic {
    pub(super) fn new(json: Json) -> Self {
        // Whose an event is says the topic, not the event.
        match TenantId::new("topic") {
            Ok(any) => Self(json.of_tenant(any)),
            Err(_) => Self(json),
        }
    }
}

impl Decoder for OfTopic {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let Some(end) = memchr::memchr(b'\n', frame) else {
            return Err(Cause::new(Code::BadEvent, "there is no name of a tenant before it"));
        };
        let tenant = std::str::from_utf8(&frame[..end]).map_err(|why| Cause::new(Code::BadTenant, why.to_string()))?;
        if tenant.is_empty() {
            return Err(Cause::new(Code::NoTenant, "the topic has no level that names the tenant"));
        }
        Ok(Decoded { tenant: tenant.into(), ..self.0.decode(&frame[end + 1..])? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(tenant: &str, payload: &[u8]) -> Result<(String, Vec<u8>), Code> {
        let mut frames = vec![];
        push(&mut frames, Some(tenant), payload);
        let decoder = OfTopic::new(Json::new());
        let event = decoder.decode(&frames[4..]).map_err(|cause| cause.code)?;
        Ok((event.tenant.into_owned(), event.body.into_owned()))
    }

    #[test]
    fn the_topic_says_whose_an_event_is_whatever_the_event_says() {
        let event = b"{\"tenant\":\"zen\"}";
        assert_eq!(decoded("acme", event), Ok(("acme".to_owned(), event.to_vec())));
        assert_eq!(decoded("acme", b"{}"), Ok(("acme".to_owned(), b"{}".to_vec())));
    }

    #[test]
    fn what_is_no_event_or_nobodys_is_refused() {
        assert_eq!(decoded("", b"{}"), Err(Code::NoTenant));
        assert_eq!(decoded("acme", b"{"), Err(Code::BadJson));
        assert_eq!(decoded("acme", b""), Err(Code::Empty));
        // The ingress refuses it by the grammar of names.
        let (tenant, _) = decoded("acme\nx", b"{}").unwrap();
        assert!(TenantId::new(&tenant).is_err());
        let (tenant, _) = decoded(&"ä".repeat(100), b"{}").unwrap();
        assert!(TenantId::new(&tenant).is_err());
    }
}

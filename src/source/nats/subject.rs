use std::str::FromStr;

use headworks_actors::{Cause, Code, Decoded, Decoder};

use crate::nats::unescaped;

/// Which subjects are read, as NATS writes it, with `{tenant}` for the part that names the tenant: `events.{tenant}.>`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SubjectPattern {
    /// For the server; empty for all.
    filter: String,
    /// Which part is the tenant.
    tenant: Option<usize>,
}

/// What cannot be such a pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "is {0:?}, but must be parts with dots between them, each a word, *, {{tenant}} (once at most) or, as the last, >: like events.{{tenant}}.>"
)]
pub struct InvalidSubject(String);

impl FromStr for SubjectPattern {
    type Err = InvalidSubject;

    fn from_str(text: &str) -> Result<Self, InvalidSubject> {
        let parts: Vec<_> = text.split('.').collect();
        let is_part = |(nth, part): (usize, &&str)| match *part {
            "*" | "{tenant}" => true,
            ">" => nth + 1 == parts.len(),
            word => {
                !word.is_empty() && !word.contains(['*', '>', '{', '}']) && word.bytes().all(|b| b.is_ascii_graphic())
            }
        };
        let tenants = parts.iter().filter(|part| **part == "{tenant}").count();
        if !parts.iter().enumerate().all(is_part) || tenants > 1 || text.len() > 255 {
            return Err(InvalidSubject(text.to_owned()));
        }
        let tenant = parts.iter().position(|part| *part == "{tenant}");
        Ok(Self { filter: text.replace("{tenant}", "*"), tenant })
    }
}

impl SubjectPattern {
    /// What the server is asked for.
    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn names_tenant(&self) -> bool {
        self.tenant.is_some()
    }

    /// Appends a message as a frame behind its length.
    pub(super) fn frame(&self, subject: &str, message: &[u8], frames: &mut Vec<u8>) {
        let tenant = self.tenant.map(|nth| unescaped(subject.split('.').nth(nth).unwrap_or_default()));
        let length = message.len() + tenant.as_ref().map_or(0, |tenant| tenant.len() + 1);
        // No message of any server is as long.
        frames.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes());
        if let Some(tenant) = tenant {
            frames.extend_from_slice(tenant.as_bytes());
            frames.push(b' ');
        }
        frames.extend_from_slice(message);
    }
}

/// Messages as they are, each behind the name of its tenant and a space.
pub(super) struct OfSubject;

impl Decoder for OfSubject {
    fn decode<'f>(&'f self, frame: &'f [u8]) -> Result<Decoded<'f>, Cause> {
        let at = memchr::memchr(b' ', frame);
        let (tenant, body) = at.map_or((&[][..], frame), |at| (&frame[..at], &frame[at + 1..]));
        let tenant = std::str::from_utf8(tenant).map_err(|why| Cause::new(Code::BadUtf8, why.to_string()))?;
        if body.is_empty() {
            return Err(Cause::new(Code::Empty, "the message is empty"));
        }
        Ok(Decoded { tenant: tenant.into(), time: None, body: body.into() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_names_the_tenant_where_the_pattern_says() {
        let pattern: SubjectPattern = "events.{tenant}.>".parse().unwrap();
        assert_eq!((pattern.filter(), pattern.names_tenant()), ("events.*.>", true));
        let mut frames = vec![];
        pattern.frame("events.acme.a.b", b"x y\n", &mut frames);
        assert_eq!(frames, b"\0\0\0\x09acme x y\n");
        let read = OfSubject.decode(&frames[4..]).unwrap();
        assert_eq!((&*read.tenant, &*read.body), ("acme", &b"x y\n"[..]));
        frames.clear();
        pattern.frame("events.a%2Eb.c", b"x", &mut frames);
        assert_eq!(frames, b"\0\0\0\x05a.b x");
        assert_eq!(OfSubject.decode(b"acme ").unwrap_err().code, Code::Empty);
        let plain: SubjectPattern = "events.*".parse().unwrap();
        assert!(!plain.names_tenant());
        for bad in ["", "a..b", "a.>.b", "a b", "{tenant}.{tenant}", "a{tenant}", "a*"] {
            assert!(bad.parse::<SubjectPattern>().is_err(), "{bad:?}");
        }
    }
}

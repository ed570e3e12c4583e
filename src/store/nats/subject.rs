//! The subjects of batches. Pure.

use headworks_actors::{BatchId, TenantId};

use crate::nats::escaped;

/// How subjects are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Template(String);

const TENANT: &str = "{tenant}";
const BATCH: &str = "{batch}";

impl Template {
    /// # Errors
    /// What is wrong with it, as the end of a sentence that begins with its key.
    pub(crate) fn new(text: &str) -> Result<Self, String> {
        let is_word = |part: &str| {
            !part.is_empty()
                && !part.starts_with('$')
                && part.bytes().all(|byte| byte.is_ascii_graphic() && !b"*>{}".contains(&byte))
        };
        let parts: Vec<_> = text.split('.').collect();
        for what in [TENANT, BATCH] {
            if parts.iter().filter(|part| **part == what).count() != 1 {
                return Err(format!(
                    "is {text:?}, but has {what} as one of its parts, once, so that batches can be told apart: headworks.{{tenant}}.{{batch}}"
                ));
            }
        }
        if !parts.iter().all(|part| [TENANT, BATCH].contains(part) || is_word(part)) || text.len() > 255 {
            return Err(format!(
                "is {text:?}, but is parts with dots between them, each {TENANT}, {BATCH} or a word without \"*\", \">\" and spaces"
            ));
        }
        Ok(Self(text.to_owned()))
    }

    /// The subject of a batch, which no other batch ever has.
    pub(super) fn subject(&self, id: &BatchId) -> String {
        let batch = format!("{}-{}{}", id.opening, id.seq, id.piece.to_string().replace('.', "-"));
        self.0.replace(BATCH, &batch).replace(TENANT, &escaped(id.tenant.as_str()))
    }

    /// The subjects of all batches of the tenant, and of nobody else's.
    pub(super) fn of_tenant(&self, tenant: &TenantId) -> String {
        self.0.replace(BATCH, "*").replace(TENANT, &escaped(tenant.as_str()))
    }

    /// All subjects.
    pub(super) fn wildcard(&self) -> String {
        self.0.replace(TENANT, "*").replace(BATCH, "*")
    }

    /// Whether a stream with this subject, which may have wildcards, takes all of them.
    pub(super) fn is_taken_by(&self, subject: &str) -> bool {
        let (ours, mut theirs) = (self.wildcard(), subject.split('.'));
        for part in ours.split('.') {
            match theirs.next() {
                Some(">") => return true,
                Some("*") => {}
                Some(word) if word == part => {}
                _ => return false,
            }
        }
        theirs.next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_tenant_and_batch_as_parts_of_their_own() {
        let template = Template::new("prod.{tenant}.x.{batch}").unwrap();
        let subject = |id: &str| template.subject(&id.parse().unwrap());
        assert_eq!(subject("5f0c9b1e2d3a4f60/acme/42"), "prod.acme.x.5f0c9b1e2d3a4f60-42");
        assert_eq!(subject("5f0c9b1e2d3a4f60/a.b/42.2.1"), "prod.a%2Eb.x.5f0c9b1e2d3a4f60-42-2-1");
        let of = |tenant: &str| template.of_tenant(&tenant.parse().unwrap());
        assert_eq!((of("acme"), of("a.b")), ("prod.acme.x.*".to_owned(), "prod.a%2Eb.x.*".to_owned()));
        for bad in [
            "",
            "events",
            "events.{tenant}",
            "{batch}",
            "{tenant}.{tenant}.{batch}",
            "a.x{tenant}.{batch}",
            "{tenant}.{batch}.",
            "*.{tenant}.{batch}",
            "{tenant}.{batch}.>",
            "a b.{tenant}.{batch}",
            "$JS.{tenant}.{batch}",
        ] {
            assert!(Template::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_stream_takes_the_subjects_where_its_wildcards_do() {
        let template = Template::new("prod.{tenant}.{batch}").unwrap();
        for (subject, takes) in [
            ("prod.*.*", true),
            ("prod.>", true),
            (">", true),
            ("*.*.*", true),
            ("prod.*.>", true),
            ("prod.*", false),
            ("prod.*.*.*", false),
            ("prod.acme.*", false),
            ("test.>", false),
            ("prod", false),
        ] {
            assert_eq!(template.is_taken_by(subject), takes, "{subject}");
        }
    }
}

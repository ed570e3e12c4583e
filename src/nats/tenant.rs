//! A tenant as a part of a subject, there and back.

use std::borrow::Cow;

/// A dot ends a part, and by its grammar a tenant has nothing else in it that means something to NATS, and no `%`.
pub(crate) fn escaped(tenant: &str) -> Cow<'_, str> {
    if tenant.contains('.') { tenant.replace('.', "%2E").into() } else { tenant.into() }
}

/// The tenant that a part of a subject stands for.
pub(crate) fn unescaped(part: &str) -> Cow<'_, str> {
    if part.contains('%') { part.replace("%2E", ".").replace("%2e", ".").into() } else { part.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenant_is_one_part_of_a_subject_and_comes_back_as_it_was() {
        for tenant in ["acme", "a.b", "a..", "ACME_1-2", "7.7.7"] {
            let part = escaped(tenant);
            assert!(!part.contains('.') && unescaped(&part) == tenant, "{tenant} {part}");
        }
        assert_eq!((&*escaped("a.b"), &*unescaped("a%2eb")), ("a%2Eb", "a.b"));
    }
}

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// So long before its end a certificate is told of.
const SOON: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// From when until when a certificate counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Validity {
    from: SystemTime,
    to: SystemTime,
}

impl Validity {
    /// Of the first of the certificates, which is the server's own; none where that cannot be told.
    pub(super) fn of(certificates: &[CertificateDer<'_>]) -> Option<Self> {
        let own = Certificate::from_der(certificates.first()?).ok()?;
        let validity = own.tbs_certificate.validity;
        Some(Self { from: validity.not_before.to_system_time(), to: validity.not_after.to_system_time() })
    }

    /// A sentence where clients refuse it, or soon will.
    pub(super) fn warning(self, file: &Path, now: SystemTime) -> Option<String> {
        let file = file.display();
        let day = |at| humantime::format_rfc3339_seconds(at);
        if now < self.from {
            let from = day(self.from);
            return Some(format!(
                "the certificate in {file} (tls.cert_file) is not valid before {from}: clients refuse it until then"
            ));
        }
        if now > self.to {
            let to = day(self.to);
            return Some(format!(
                "the certificate in {file} (tls.cert_file) has expired, at {to}: clients refuse it; put a new one there, and send SIGHUP"
            ));
        }
        (now + SOON > self.to)
            .then(|| format!("the certificate in {file} (tls.cert_file) expires soon, at {}", day(self.to)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_is_told_of_before_its_time_after_it_and_in_its_last_two_weeks() {
        let at = |days: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(days * 24 * 60 * 60);
        let validity = Validity { from: at(100), to: at(200) };
        let told = |days| validity.warning(Path::new("a.pem"), at(days));
        assert!(told(99).is_some_and(|told| told.contains("a.pem") && told.contains("before 1970-04-11T00:00:00Z")));
        assert_eq!((told(100), told(186)), (None, None));
        assert!(told(187).is_some_and(|told| told.contains("expires soon, at 1970-07-20T00:00:00Z")));
        assert!(told(201).is_some_and(|told| told.contains("has expired, at 1970-07-20T00:00:00Z")));
    }
}

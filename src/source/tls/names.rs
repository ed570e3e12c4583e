use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Who a certificate was made out to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Names {
    /// Its common name and DNS names.
    pub(super) plain: Vec<String>,
    /// Its URIs, as `spiffe://example.org/sensor`.
    pub(super) uris: Vec<String>,
}

impl Names {
    /// Of a certificate that was verified.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let unread = |why| format!("its certificate cannot be read: {why}");
        let certificate = Certificate::from_der(certificate).map_err(unread)?.tbs_certificate;
        let mut names = Self::default();
        let parts = certificate.subject.0.iter().flat_map(|part| part.0.iter());
        for part in parts.filter(|part| part.oid == COMMON_NAME) {
            names.plain.extend(std::str::from_utf8(part.value.value()).map(str::to_owned));
        }
        if let Some((_, SubjectAltName(others))) = certificate.get().map_err(unread)? {
            for other in others {
                match other {
                    GeneralName::DnsName(name) => names.plain.push(name.to_string()),
                    GeneralName::UniformResourceIdentifier(uri) => names.uris.push(uri.to_string()),
                    _ => {}
                }
            }
        }
        Ok(names)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &str> {
        self.plain.iter().chain(&self.uris).map(String::as_str)
    }
}

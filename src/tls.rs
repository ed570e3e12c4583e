//! What TLS is made of, for whoever speaks it: one provider, and certificates from files.

use std::fmt::Display;
use std::path::Path;
use std::sync::Arc;

#[cfg(any(feature = "mqtt", feature = "webhook"))]
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The one that does the arithmetic. Said out loud, so that it is the same whatever else the program is made of.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// The certificates (PEM) of a file, at least one; an error names the file and `key`, which the configuration has it under.
pub(crate) fn certificates(path: &Path, key: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let unread = |why: &dyn Display| format!("cannot read certificates (PEM) from {} ({key}): {why}", path.display());
    let all = CertificateDer::pem_file_iter(path).map_err(|why| unread(&why))?;
    let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|why| unread(&why))?;
    if all.is_empty() { Err(unread(&"there is none in it")) } else { Ok(all) }
}

/// The same as those that others are to be signed by.
pub(crate) fn roots(path: &Path, key: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(path, key)? {
        let unusable = |why| format!("a certificate in {} ({key}) cannot be used: {why}", path.display());
        roots.add(root).map_err(unusable)?;
    }
    Ok(roots)
}

/// What a client speaks that trusts those of a file.
#[cfg(any(feature = "mqtt", feature = "webhook"))]
pub(crate) fn client(ca_file: &Path) -> Result<ClientConfig, String> {
    let config = ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
    let roots = roots(ca_file, "ca_file")?;
    Ok(config.map_err(|why| why.to_string())?.with_root_certificates(roots).with_no_client_auth())
}

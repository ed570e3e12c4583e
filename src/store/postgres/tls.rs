use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{PostgresOptions, SslMode};

/// What encrypts connections; none where they are not to be.
pub(super) fn connector(options: &PostgresOptions) -> Result<Option<MakeRustlsConnect>, String> {
    let provider = crate::tls::provider();
    let verifier: Arc<dyn ServerCertVerifier> = match (options.sslmode, &options.ca_file) {
        (SslMode::Disable, _) => return Ok(None),
        (SslMode::Prefer | SslMode::Require, _) => Arc::new(Anybody(provider.clone())),
        (SslMode::VerifyFull, None) => return Err("sslmode = \"verify_full\" needs a ca_file".into()),
        (SslMode::VerifyFull, Some(path)) => {
            let roots = Arc::new(crate::tls::roots(path, "ca_file")?);
            let verifier = WebPkiServerVerifier::builder_with_provider(roots, provider.clone());
            verifier.build().map_err(|why| format!("cannot verify by {} (ca_file): {why}", path.display()))?
        }
    };
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|why| why.to_string())?.dangerous().with_custom_certificate_verifier(verifier);
    Ok(Some(MakeRustlsConnect::new(config.with_no_client_auth())))
}

/// Takes any certificate, as libpq does unless it is told to verify: against those who listen, not against those who pretend.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

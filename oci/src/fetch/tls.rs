//! TLS settings, made at the first https connection: loading the system's roots takes up to 20 ms, which a build that
//! finds everything in its cache must not pay.
//!
//! Roots are the system's. A host's directory below `/etc/docker/certs.d` or `/etc/containers/certs.d` adds to them
//! (R6.1.3, R6.1.4): `*.crt` are authorities, `X.cert` with `X.key` is a client's certificate.

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// TLS client settings by host.
pub(crate) struct Tls {
    directories: Vec<PathBuf>,
    system_roots: OnceLock<RootCertStore>,
    by_host: Mutex<HashMap<(String, bool), Arc<ClientConfig>>>,
}

impl Tls {
    pub(crate) fn new() -> Self {
        Self::with_directories(vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()])
    }

    pub(crate) fn with_directories(directories: Vec<PathBuf>) -> Self {
        Tls { directories, system_roots: OnceLock::new(), by_host: Mutex::default() }
    }

    /// The settings for `host` (with its port, as names write it). Without `verify`, any certificate will do. Reads
    /// files: call it where blocking is allowed.
    pub(crate) fn config(&self, host: &str, verify: bool) -> Result<Arc<ClientConfig>, String> {
        let key = (host.to_owned(), verify);
        let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = by_host.get(&key) {
            return Ok(config.clone());
        }
        let config = Arc::new(self.build(host, verify)?);
        by_host.insert(key, config.clone());
        Ok(config)
    }

    fn build(&self, host: &str, verify: bool) -> Result<ClientConfig, String> {
        let own = self.certificates_of(host)?;
        let provider = Arc::new(ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let builder = if verify {
            let mut roots = self.system_roots.get_or_init(system_roots).clone();
            roots.add_parsable_certificates(own.authorities.iter().cloned());
            if roots.is_empty() {
                return Err(
                    "no trusted certificate authorities found; install ca-certificates or set SSL_CERT_FILE".into()
                );
            }
            let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| error.to_string())?;
            let verifier = AcceptOwn { usual: verifier, own: own.authorities };
            builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier))
        } else {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAny(provider)))
        };
        let mut config = match own.client {
            Some((chain, key)) => builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("client certificate for {host}: {error}"))?,
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    fn certificates_of(&self, host: &str) -> Result<HostCertificates, String> {
        let mut found = HostCertificates::default();
        // A host comes out of a reference and must stay one component.
        if host.contains('/') || host.starts_with('.') {
            return Ok(found);
        }
        for directory in &self.directories {
            let Ok(entries) = std::fs::read_dir(directory.join(host)) else {
                continue;
            };
            let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
            paths.sort();
            for path in paths {
                let why = |error: rustls::pki_types::pem::Error| format!("cannot read {}: {error}", path.display());
                let read = || CertificateDer::pem_file_iter(&path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
                match path.extension().and_then(|extension| extension.to_str()) {
                    Some("crt") => found.authorities.extend(read().map_err(why)?),
                    Some("cert") if found.client.is_none() => {
                        let key = PrivateKeyDer::from_pem_file(path.with_extension("key")).map_err(why)?;
                        found.client = Some((read().map_err(why)?, key));
                    }
                    _ => {}
                }
            }
        }
        Ok(found)
    }
}

#[derive(Default)]
struct HostCertificates {
    authorities: Vec<CertificateDer<'static>>,
    client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

fn system_roots() -> RootCertStore {
    let loaded = rustls_native_certs::load_native_certs();
    for error in &loaded.errors {
        tracing::warn!(%error, "some certificate authorities could not be loaded");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(loaded.certs);
    roots
}

/// Certificates are verified as usual. Besides, a registry may show the very certificate that its directory holds: the
/// self-signed one that Docker's documentation has people make is marked as an authority, which is otherwise refused.
#[derive(Debug)]
struct AcceptOwn {
    usual: Arc<WebPkiServerVerifier>,
    own: Vec<CertificateDer<'static>>,
}

impl ServerCertVerifier for AcceptOwn {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match self.usual.verify_server_cert(certificate, intermediates, name, ocsp, now) {
            Ok(verified) => return Ok(verified),
            Err(error) => error,
        };
        if !self.own.contains(certificate) {
            return Err(refused);
        }
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// For registries that the configuration calls insecure. Signatures are still checked, so that the session is at
/// least with whoever sent the certificate.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

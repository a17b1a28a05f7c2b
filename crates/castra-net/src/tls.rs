//! TLS of both sides: server and client configurations out of PEM text, with errors that say what
//! is wrong with which part.
//!
//! TLS 1.3 with the hybrid post-quantum group first, through rustls and aws-lc-rs. No files are
//! read and no clock is looked at here; both are handed in.

use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use castra_core::Timestamp;
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::{CryptoProvider, aws_lc_rs},
    server::{NoServerSessionStorage, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::{TLS12, TLS13},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use x509_parser::{
    extensions::GeneralName,
    prelude::{FromDer, X509Certificate},
};
use zeroize::Zeroizing;

/// What a listener needs for TLS. All text is PEM.
pub struct ServerTlsConfig {
    /// The server's certificate, leaf first, then its intermediates.
    pub certificate_pem: Vec<u8>,
    /// The private key of the leaf (PKCS #8, SEC 1 or PKCS #1).
    pub key_pem: Zeroizing<Vec<u8>>,
    /// CA certificates that client certificates must chain to. Empty: clients are not asked for one.
    pub client_roots_pem: Vec<Vec<u8>>,
    /// Whether HTTP/2 is offered besides HTTP/1.1 (ALPN).
    pub http2: bool,
}

/// The TLS side of a listener, which can be replaced while it serves.
pub struct ServerTls {
    current: ArcSwap<Loaded>,
}

struct Loaded {
    config: Arc<ServerConfig>,
    facts: CertificateFacts,
}

impl ServerTls {
    /// Checks all parts and builds the configuration: the PEM text must parse, the key must belong
    /// to the certificate, and the certificate must be valid `now`.
    pub fn new(config: &ServerTlsConfig, now: Timestamp) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee(load(config, now)?);
        Ok(Arc::new(Self { current }))
    }

    /// Replaces certificate, key and client roots for connections from now on; those that are open
    /// stay as they are. What was there before stays in force when the new parts are not good.
    pub fn reload(&self, config: &ServerTlsConfig, now: Timestamp) -> Result<(), TlsError> {
        self.current.store(Arc::new(load(config, now)?));
        Ok(())
    }

    /// What the certificate in use says.
    pub fn certificate(&self) -> CertificateFacts {
        self.current.load().facts.clone()
    }

    /// The configuration for the next handshake.
    pub fn current(&self) -> Arc<ServerConfig> {
        self.current.load().config.clone()
    }
}

/// What an operator wants to know of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Distinguished name, for people.
    pub subject: String,
    /// DNS names, IP addresses and URIs that it stands for.
    pub names: Vec<String>,
    /// Not valid before.
    pub not_before: Timestamp,
    /// Not valid after.
    pub not_after: Timestamp,
}

impl CertificateFacts {
    /// Reads the first certificate of a PEM text.
    pub fn from_pem(pem: &[u8]) -> Result<Self, TlsError> {
        const WHAT: &str = "certificate";
        let chain = certificates(pem, WHAT)?;
        Self::of(chain.first().ok_or(TlsError::NoCertificate { what: WHAT })?)
    }

    fn of(der: &CertificateDer<'_>) -> Result<Self, TlsError> {
        let (_, certificate) = X509Certificate::from_der(der)
            .map_err(|e| TlsError::BadPem { what: "certificate", reason: e.to_string() })?;
        let names = certificate.subject_alternative_name().ok().flatten();
        let names = names.map(|san| san.value.general_names.iter().filter_map(name_text).collect());
        Ok(Self {
            subject: certificate.subject().to_string(),
            names: names.unwrap_or_default(),
            not_before: Timestamp::from_secs(certificate.validity().not_before.timestamp()),
            not_after: Timestamp::from_secs(certificate.validity().not_after.timestamp()),
        })
    }

    fn check_valid(&self, now: Timestamp) -> Result<(), TlsError> {
        let subject = || self.names.first().unwrap_or(&self.subject).clone();
        if now > self.not_after {
            return Err(TlsError::Expired { subject: subject(), not_after: self.not_after });
        }
        if now < self.not_before {
            return Err(TlsError::NotYetValid { subject: subject(), not_before: self.not_before });
        }
        Ok(())
    }
}

fn name_text(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| std::net::Ipv4Addr::from(b).to_string()),
            16 => <[u8; 16]>::try_from(*bytes).ok().map(|b| std::net::Ipv6Addr::from(b).to_string()),
            _ => None,
        },
        _ => None,
    }
}

/// What a client needs for TLS. All text is PEM.
#[derive(Default)]
pub struct ClientTlsConfig {
    /// CA certificates that servers must chain to; exactly these are trusted.
    pub roots_pem: Vec<Vec<u8>>,
    /// The client's certificate chain and key, for servers that ask for one.
    pub identity_pem: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
    /// Lets TLS 1.2 happen, for one upstream that has nothing better.
    pub allow_tls12: bool,
    /// Protocols to offer, best first (`b"h2"`, `b"http/1.1"`); empty offers none.
    pub alpn: Vec<Vec<u8>>,
}

/// Builds a client configuration.
pub fn client_config(config: &ClientTlsConfig) -> Result<ClientConfig, TlsError> {
    let versions: &[_] = if config.allow_tls12 { &[&TLS13, &TLS12] } else { &[&TLS13] };
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(versions)?
        .with_root_certificates(roots(&config.roots_pem, "trusted CA certificates")?);
    let mut client = match &config.identity_pem {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            builder.with_client_auth_cert(certificates(chain, "client certificate")?, private_key(key)?)?
        }
    };
    client.alpn_protocols.clone_from(&config.alpn);
    Ok(client)
}

/// Where systems keep their bundle of CA certificates, likeliest first. The caller reads the file.
pub const SYSTEM_ROOTS: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Why a TLS configuration was refused.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// PEM text without a certificate.
    #[error("the {what} holds no certificate: expected PEM text with -----BEGIN CERTIFICATE-----")]
    NoCertificate {
        /// Which part.
        what: &'static str,
    },
    /// PEM text that cannot be read.
    #[error("the {what} cannot be read: {reason}")]
    BadPem {
        /// Which part.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// The key file holds no key, or one that is encrypted.
    #[error(
        "the private key cannot be read ({reason}): expected PEM text with -----BEGIN PRIVATE KEY-----, not encrypted"
    )]
    BadKey {
        /// Why; never the key itself.
        reason: String,
    },
    /// Certificate and key are of different pairs.
    #[error(
        "the private key does not belong to the certificate: give the key that the certificate was made with"
    )]
    KeyMismatch,
    /// The certificate has ended.
    #[error("the certificate of {subject} expired at {not_after}: renew it")]
    Expired {
        /// First name of the certificate.
        subject: String,
        /// When it ended.
        not_after: Timestamp,
    },
    /// The certificate has not begun.
    #[error(
        "the certificate of {subject} is not valid before {not_before}: check the clock of this machine, or wait"
    )]
    NotYetValid {
        /// First name of the certificate.
        subject: String,
        /// When it begins.
        not_before: Timestamp,
    },
    /// rustls refused the parts for another reason.
    #[error("TLS cannot be set up: {0}")]
    Refused(String),
}

impl From<rustls::Error> for TlsError {
    fn from(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch) => Self::KeyMismatch,
            other => Self::Refused(other.to_string()),
        }
    }
}

fn load(config: &ServerTlsConfig, now: Timestamp) -> Result<Loaded, TlsError> {
    const WHAT: &str = "server certificate";
    let chain = certificates(&config.certificate_pem, WHAT)?;
    let facts = CertificateFacts::of(chain.first().ok_or(TlsError::NoCertificate { what: WHAT })?)?;
    facts.check_valid(now)?;
    let pair = CertifiedKey::from_der(chain, private_key(&config.key_pem)?, &provider())?;
    let verifier = if config.client_roots_pem.is_empty() {
        WebPkiClientVerifier::no_client_auth()
    } else {
        let roots = roots(&config.client_roots_pem, "client CA certificates")?;
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider())
            .allow_unauthenticated()
            .build()
            .map_err(|e| TlsError::Refused(e.to_string()))?
    };
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    // A resumed session would carry a client certificate that nobody checked again, so every
    // connection shakes hands in full. Connections are long and handshakes few.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    server.max_early_data_size = 0;
    server.alpn_protocols = if config.http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    server.alpn_protocols.push(b"http/1.1".to_vec());
    Ok(Loaded { config: Arc::new(server), facts })
}

/// rustls over aws-lc-rs with the groups in our order. The order is written out here rather than
/// left to a feature of rustls, because it is a promise.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: OnceLock<Arc<CryptoProvider>> = OnceLock::new();
    let make = || {
        use aws_lc_rs::kx_group::{SECP256R1, SECP384R1, X25519, X25519MLKEM768};
        let kx_groups = vec![X25519MLKEM768, X25519, SECP256R1, SECP384R1];
        Arc::new(CryptoProvider { kx_groups, ..aws_lc_rs::default_provider() })
    };
    PROVIDER.get_or_init(make).clone()
}

fn roots(pems: &[Vec<u8>], what: &'static str) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    for pem in pems {
        for certificate in certificates(pem, what)? {
            store.add(certificate).map_err(|e| TlsError::BadPem { what, reason: e.to_string() })?;
        }
    }
    if store.is_empty() { Err(TlsError::NoCertificate { what }) } else { Ok(store) }
}

fn certificates(pem: &[u8], what: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|e| TlsError::BadPem { what, reason: e.to_string() })?;
    if all.is_empty() { Err(TlsError::NoCertificate { what }) } else { Ok(all) }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| TlsError::BadKey { reason: e.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(names: &[&str]) -> (Vec<u8>, Zeroizing<Vec<u8>>) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        (made.cert.pem().into_bytes(), made.signing_key.serialize_pem().into_bytes().into())
    }

    fn config(certificate_pem: Vec<u8>, key_pem: Zeroizing<Vec<u8>>) -> ServerTlsConfig {
        ServerTlsConfig { certificate_pem, key_pem, client_roots_pem: Vec::new(), http2: true }
    }

    const NOW: Timestamp = Timestamp(1_795_557_868_000_000);

    fn refused(config: &ServerTlsConfig, now: Timestamp) -> String {
        ServerTls::new(config, now).err().map(|e| e.to_string()).unwrap_or_default()
    }

    #[test]
    fn each_bad_part_is_named() {
        let (certificate, key) = pair(&["gate.example", "127.0.0.1"]);
        let (_, other) = pair(&["other.example"]);
        assert!(ServerTls::new(&config(certificate.clone(), key.clone()), NOW).is_ok());
        let cases: [(ServerTlsConfig, i64, &str); 6] = [
            (config(b"nothing".to_vec(), key.clone()), NOW.secs(), "server certificate holds no certificate"),
            (
                config(certificate.clone(), certificate.clone().into()),
                NOW.secs(),
                "private key cannot be read",
            ),
            (config(certificate.clone(), other), NOW.secs(), "does not belong to the certificate"),
            (config(certificate.clone(), key.clone()), 99_999_999_999, "gate.example expired at 4096-"),
            (config(certificate.clone(), key.clone()), 0, "not valid before 1975-"),
            (
                ServerTlsConfig { client_roots_pem: vec![b"x".to_vec()], ..config(certificate, key) },
                NOW.secs(),
                "client CA certificates holds no certificate",
            ),
        ];
        for (config, now, expected) in cases {
            let said = refused(&config, Timestamp::from_secs(now));
            assert!(said.contains(expected), "{said:?} should contain {expected:?}");
        }
    }

    #[test]
    fn a_bad_reload_changes_nothing() {
        let (certificate, key) = pair(&["one.example"]);
        let tls = ServerTls::new(&config(certificate, key.clone()), NOW).unwrap();
        let (second, second_key) = pair(&["two.example"]);
        assert!(tls.reload(&config(second.clone(), key), NOW).is_err());
        assert_eq!(tls.certificate().names, ["one.example"]);
        tls.reload(&config(second, second_key), NOW).unwrap();
        assert_eq!(tls.certificate().names, ["two.example"]);
    }

    #[test]
    fn facts_name_addresses_too() {
        let (certificate, _) = pair(&["gate.example", "127.0.0.1", "::1"]);
        let facts = CertificateFacts::from_pem(&certificate).unwrap();
        assert_eq!(facts.names, ["gate.example", "127.0.0.1", "::1"]);
    }

    #[test]
    fn clients_trust_only_what_they_are_given() {
        assert!(matches!(client_config(&ClientTlsConfig::default()), Err(TlsError::NoCertificate { .. })));
        let (certificate, _) = pair(&["a.example"]);
        let good = ClientTlsConfig { roots_pem: vec![certificate], ..ClientTlsConfig::default() };
        assert!(client_config(&good).is_ok());
    }
}

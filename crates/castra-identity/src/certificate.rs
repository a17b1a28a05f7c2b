//! Certificates: the built-in CA, and who a client certificate stands for.
//!
//! An agent's certificate is a SPIFFE X.509-SVID: its name is the URI
//! `spiffe://<trust domain>/agent/<name>` in the subject alternative names, and nothing else in it
//! says who it is. TLS verifies chain, dates and possession of the key; `read_peer` only reads the
//! name, strictly. Private keys are drawn by the cryptographic library and returned as PEM for the
//! store to keep; serial numbers and the time are handed in.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    str::FromStr,
    time::Duration,
};

use castra_core::{AgentName, Digest, Timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType, SerialNumber,
};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use crate::sha256;

/// Days that the built-in CA is good for.
pub const AUTHORITY_LIFE_DAYS: u32 = 3650;
/// Days that an agent's certificate is good for unless asked otherwise.
pub const AGENT_LIFE_DAYS: u32 = 30;
/// Longest life of a certificate issued here; CA/Browser Forum's bound for servers.
pub const LIFE_DAYS_MAX: u32 = 397;
/// Certificates begin this much before they are made, for machines whose clock is behind.
const BACKDATED_SECS: i64 = 3600;
/// Largest certificate that is read.
const DER_BYTES_MAX: usize = 64 << 10;

/// Why a certificate could not be made or does not name an agent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum CertificateError {
    #[error("the certificate could not be made: {reason}")]
    NotMade { reason: String },
    #[error("{what} cannot be read: {reason}")]
    Unreadable { what: &'static str, reason: String },
    #[error("the key does not belong to the CA certificate")]
    ForeignKey,
    #[error("{name:?} is neither a DNS name nor an IP address")]
    ServerName { name: String },
    #[error("a life of {days} days is not between 1 and {max}")]
    Life { days: u32, max: u32 },
    #[error("{domain:?} is not a trust domain: use 1 to 255 lower case letters, digits, '.', '-' or '_'")]
    TrustDomain { domain: String },
    #[error("the certificate is one of a CA, not of an agent")]
    IsAuthority,
    #[error("the certificate has {found} {field}; exactly one names the agent")]
    NotOneName { field: &'static str, found: usize },
    #[error("{name:?} is not an agent of trust domain {domain}: it would be spiffe://{domain}/agent/NAME")]
    ForeignName { name: String, domain: TrustDomain },
    #[error("{name:?} stands for no agent in the configuration")]
    UnmappedName { name: String },
}

/// The domain that agents' SPIFFE names belong to; one per installation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// Checks a trust domain (SPIFFE-ID section 2.1).
    pub fn new(domain: &str) -> Result<Self, CertificateError> {
        let good = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b".-_".contains(&b);
        if (1..=255).contains(&domain.len()) && domain.bytes().all(good) {
            Ok(Self(domain.to_owned()))
        } else {
            Err(CertificateError::TrustDomain { domain: domain.chars().take(80).collect() })
        }
    }

    /// The domain as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An agent's SPIFFE ID.
    pub fn agent_id(&self, agent: &AgentName) -> String {
        format!("spiffe://{self}/agent/{agent}")
    }

    fn agent_of(&self, id: &str) -> Option<AgentName> {
        let path = id.strip_prefix("spiffe://")?.strip_prefix(self.as_str())?;
        AgentName::new(path.strip_prefix("/agent/")?).ok()
    }
}

impl Default for TrustDomain {
    fn default() -> Self {
        Self("castra.internal".to_owned())
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for TrustDomain {
    type Err = CertificateError;
    fn from_str(text: &str) -> Result<Self, CertificateError> {
        Self::new(text)
    }
}

impl Serialize for TrustDomain {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for TrustDomain {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

/// A certificate that was just made, with its key.
pub struct IssuedCertificate {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key (PKCS #8). Not kept for agents: it is shown once.
    pub key_pem: Zeroizing<String>,
    /// Serial number in hex.
    pub serial: String,
    /// SHA-256 of its DER form.
    pub fingerprint: Digest,
    /// When it ends.
    pub not_after: Timestamp,
}

impl fmt::Debug for IssuedCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IssuedCertificate({} until {})", self.serial, self.not_after)
    }
}

/// The curve of a CA's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Curve {
    /// NIST P-256: smaller and faster handshakes.
    #[default]
    P256,
    /// NIST P-384.
    P384,
}

/// Makes a CA: self-signed, ten years, for leaf certificates only.
pub fn create_authority(
    common_name: &str,
    curve: Curve,
    now: Timestamp,
    serial: [u8; 16],
) -> Result<IssuedCertificate, CertificateError> {
    let mut params = params(common_name, now, AUTHORITY_LIFE_DAYS, serial)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let algorithm = match curve {
        Curve::P256 => &rcgen::PKCS_ECDSA_P256_SHA256,
        Curve::P384 => &rcgen::PKCS_ECDSA_P384_SHA384,
    };
    let key = KeyPair::generate_for(algorithm).map_err(not_made)?;
    let certificate = params.self_signed(&key).map_err(not_made)?;
    Ok(issued(&certificate, &key, &params))
}

/// The built-in CA, ready to issue.
pub struct Authority {
    issuer: rcgen::Issuer<'static, KeyPair>,
    certificate_pem: String,
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authority")
    }
}

impl Authority {
    /// Loads a CA and checks that key and certificate belong together.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, CertificateError> {
        let key = KeyPair::from_pem(key_pem).map_err(|e| unreadable("the CA key", &e))?;
        let der = CertificateDer::from_pem_slice(certificate_pem.as_bytes())
            .map_err(|e| unreadable("the CA certificate", &e))?;
        let certificate = parse("the CA certificate", &der)?;
        if certificate.public_key().subject_public_key.data.as_ref() != key.public_key_raw() {
            return Err(CertificateError::ForeignKey);
        }
        let issuer =
            rcgen::Issuer::from_ca_cert_der(&der, key).map_err(|e| unreadable("the CA certificate", &e))?;
        Ok(Self { issuer, certificate_pem: certificate_pem.to_owned() })
    }

    /// The CA's own certificate, which clients and servers trust.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate_pem
    }

    /// Issues a certificate for a server under DNS names and IP addresses.
    pub fn issue_server(
        &self,
        names: &[String],
        now: Timestamp,
        life_days: u32,
        serial: [u8; 16],
    ) -> Result<IssuedCertificate, CertificateError> {
        let mut params = params(names.first().map_or("castra", String::as_str), now, life_days, serial)?;
        params.subject_alt_names = names.iter().map(|name| server_san(name)).collect::<Result<_, _>>()?;
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.issue_leaf(params, life_days)
    }

    /// Issues a client certificate for an agent.
    pub fn issue_agent(
        &self,
        agent: &AgentName,
        domain: &TrustDomain,
        now: Timestamp,
        life_days: u32,
        serial: [u8; 16],
    ) -> Result<IssuedCertificate, CertificateError> {
        let mut params = params(agent.as_str(), now, life_days, serial)?;
        let id = domain.agent_id(agent).try_into().map_err(not_made)?;
        params.subject_alt_names = vec![SanType::URI(id)];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.issue_leaf(params, life_days)
    }

    fn issue_leaf(
        &self,
        mut params: CertificateParams,
        life_days: u32,
    ) -> Result<IssuedCertificate, CertificateError> {
        if !(1..=LIFE_DAYS_MAX).contains(&life_days) {
            return Err(CertificateError::Life { days: life_days, max: LIFE_DAYS_MAX });
        }
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).map_err(not_made)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(not_made)?;
        Ok(issued(&certificate, &key, &params))
    }
}

/// How the names in client certificates of one CA are read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameRule {
    /// The built-in CA: SPIFFE names of our trust domain, and only certificates that the store
    /// lists count.
    Issued(TrustDomain),
    /// A given CA that writes SPIFFE names as we do.
    Spiffe(TrustDomain),
    /// A given CA with names of its own: one field, whose values stand for agents.
    Mapped {
        /// Which field names the agent.
        field: NameField,
        /// Agents by the field's value.
        agents: BTreeMap<String, AgentName>,
    },
}

/// A field of a certificate that can name an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NameField {
    /// A URI among the subject alternative names.
    Uri,
    /// A DNS name among the subject alternative names.
    Dns,
    /// The subject's common name.
    CommonName,
}

impl NameField {
    fn plural(self) -> &'static str {
        match self {
            Self::Uri => "URI names",
            Self::Dns => "DNS names",
            Self::CommonName => "common names",
        }
    }
}

/// What a client certificate says, read once per connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The agent that it stands for.
    pub agent: AgentName,
    /// SHA-256 of its DER form.
    pub fingerprint: Digest,
    /// Serial number in hex.
    pub serial: String,
    /// When it ends.
    pub expires: Timestamp,
    /// Whether it must be among those issued here.
    pub issued_here: bool,
}

/// Reads the name of a client certificate whose chain TLS verified.
pub fn read_peer(der: &[u8], rule: &NameRule) -> Result<PeerCertificate, CertificateError> {
    let certificate = parse("the client certificate", der)?;
    if certificate.is_ca() {
        return Err(CertificateError::IsAuthority);
    }
    let agent = match rule {
        NameRule::Issued(domain) | NameRule::Spiffe(domain) => {
            let name = only_name(&certificate, NameField::Uri)?;
            domain.agent_of(name).ok_or_else(|| CertificateError::ForeignName {
                name: name.chars().take(200).collect(),
                domain: domain.clone(),
            })?
        }
        NameRule::Mapped { field, agents } => {
            let name = only_name(&certificate, *field)?;
            agents
                .get(name)
                .cloned()
                .ok_or_else(|| CertificateError::UnmappedName { name: name.chars().take(200).collect() })?
        }
    };
    Ok(PeerCertificate {
        agent,
        fingerprint: sha256(&[der]),
        serial: hex(certificate.raw_serial()),
        expires: Timestamp::from_secs(certificate.validity().not_after.timestamp()),
        issued_here: matches!(rule, NameRule::Issued(_)),
    })
}

/// What a server certificate says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerFacts {
    /// DNS names and IP addresses that it is good for, as text.
    pub names: BTreeSet<String>,
    /// When it ends.
    pub not_after: Timestamp,
}

/// Reads the first certificate of a PEM text.
pub fn read_server(pem: &str) -> Result<ServerFacts, CertificateError> {
    let what = "the server certificate";
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| unreadable(what, &e))?;
    let certificate = parse(what, &der)?;
    let san = certificate.subject_alternative_name().map_err(|e| unreadable(what, &e))?;
    let names = san.map(|san| san.value.general_names.iter().filter_map(server_name).collect());
    Ok(ServerFacts {
        names: names.unwrap_or_default(),
        not_after: Timestamp::from_secs(certificate.validity().not_after.timestamp()),
    })
}

fn server_name(name: &GeneralName<'_>) -> Option<String> {
    match name {
        GeneralName::DNSName(dns) => Some((*dns).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = || <[u8; 4]>::try_from(*bytes).ok().map(IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(*bytes).ok().map(IpAddr::from);
            v4().or_else(v6).map(|ip| ip.to_string())
        }
        _ => None,
    }
}

/// The value of a field that must be there once. The SPIFFE X.509-SVID specification (section 2)
/// demands exactly one URI: with two, two readers could see two agents.
fn only_name<'a>(
    certificate: &'a X509Certificate<'_>,
    field: NameField,
) -> Result<&'a str, CertificateError> {
    let names: Vec<&str> = match field {
        NameField::CommonName => {
            certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).collect()
        }
        NameField::Uri | NameField::Dns => certificate
            .subject_alternative_name()
            .map_err(|e| unreadable("the client certificate", &e))?
            .map(|san| san.value.general_names.iter().filter_map(|name| field_value(name, field)).collect())
            .unwrap_or_default(),
    };
    match names.as_slice() {
        [name] => Ok(name),
        _ => Err(CertificateError::NotOneName { field: field.plural(), found: names.len() }),
    }
}

fn field_value<'a>(name: &'a GeneralName<'_>, field: NameField) -> Option<&'a str> {
    match (name, field) {
        (GeneralName::URI(uri), NameField::Uri) => Some(uri),
        (GeneralName::DNSName(dns), NameField::Dns) => Some(dns),
        _ => None,
    }
}

fn parse<'a>(what: &'static str, der: &'a [u8]) -> Result<X509Certificate<'a>, CertificateError> {
    if der.len() > DER_BYTES_MAX {
        let reason = format!("it has {} bytes, and {DER_BYTES_MAX} are the most", der.len());
        return Err(CertificateError::Unreadable { what, reason });
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        Ok(_) => Err(CertificateError::Unreadable { what, reason: "bytes follow it".into() }),
        Err(e) => Err(unreadable(what, &e)),
    }
}

fn params(
    common_name: &str,
    now: Timestamp,
    life_days: u32,
    serial: [u8; 16],
) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(Vec::new()).map_err(not_made)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "Castra");
    params.distinguished_name.push(DnType::CommonName, common_name);
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let at = |time: Timestamp| u64::try_from(time.secs()).map(|secs| epoch + Duration::from_secs(secs));
    let outside = |_| CertificateError::NotMade { reason: format!("the clock says {now}") };
    params.not_before = at(now.plus_secs(-BACKDATED_SECS)).map_err(outside)?;
    params.not_after = at(now.plus_secs(i64::from(life_days) * 86_400)).map_err(outside)?;
    params.serial_number = Some(SerialNumber::from_slice(&positive(serial)));
    Ok(params)
}

/// RFC 5280 section 4.1.2.2: serial numbers are positive. 01 as the first bits also keeps the
/// length, so that hex on both sides is the same.
fn positive(mut serial: [u8; 16]) -> [u8; 16] {
    if let Some(first) = serial.first_mut() {
        *first = (*first & 0x3f) | 0x40;
    }
    serial
}

fn server_san(name: &str) -> Result<SanType, CertificateError> {
    let bad = || CertificateError::ServerName { name: name.chars().take(200).collect() };
    if let Ok(ip) = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        return Ok(SanType::IpAddress(ip));
    }
    // rustls refuses anything that is not a DNS name, so a mistake must not wait for a handshake.
    let host = name.strip_prefix("*.").unwrap_or(name);
    rustls_pki_types::DnsName::try_from(host).map_err(|_| bad())?;
    name.try_into().map(SanType::DnsName).map_err(|_| bad())
}

fn issued(certificate: &rcgen::Certificate, key: &KeyPair, params: &CertificateParams) -> IssuedCertificate {
    IssuedCertificate {
        certificate_pem: certificate.pem(),
        key_pem: Zeroizing::new(key.serialize_pem()),
        serial: params.serial_number.as_ref().map(|serial| hex(&serial.to_bytes())).unwrap_or_default(),
        fingerprint: sha256(&[certificate.der()]),
        not_after: Timestamp::from_secs(params.not_after.unix_timestamp()),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn not_made(reason: rcgen::Error) -> CertificateError {
    CertificateError::NotMade { reason: reason.to_string() }
}

fn unreadable(what: &'static str, reason: &dyn fmt::Display) -> CertificateError {
    CertificateError::Unreadable { what, reason: reason.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: Timestamp = Timestamp(1_795_557_868_000_000);

    fn authority() -> Authority {
        let made = create_authority("Test CA", Curve::P256, NOW, [0xff; 16]).expect("made");
        Authority::load(&made.certificate_pem, &made.key_pem).expect("loaded")
    }

    fn der(issued: &IssuedCertificate) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).expect("PEM")
    }

    fn agent(name: &str) -> AgentName {
        AgentName::new(name).expect("name")
    }

    #[test]
    fn an_agent_certificate_reads_back() {
        let domain = TrustDomain::new("example.internal").expect("domain");
        let made = authority().issue_agent(&agent("build-bot"), &domain, NOW, 30, [1; 16]).expect("issued");
        let peer = read_peer(&der(&made), &NameRule::Issued(domain.clone())).expect("read");
        assert_eq!(peer.agent.as_str(), "build-bot");
        assert_eq!((&peer.serial, peer.fingerprint), (&made.serial, made.fingerprint));
        assert_eq!(peer.expires, NOW.plus_secs(30 * 86_400));
        assert!(peer.issued_here && peer.serial.starts_with("41"));

        let other = TrustDomain::new("example.inter").expect("domain");
        let refused = read_peer(&der(&made), &NameRule::Issued(other));
        assert!(matches!(refused, Err(CertificateError::ForeignName { .. })), "{refused:?}");

        let by_name =
            |field, key: &str| NameRule::Mapped { field, agents: [(key.to_owned(), agent("x"))].into() };
        let mapped = read_peer(&der(&made), &by_name(NameField::CommonName, "build-bot")).expect("mapped");
        assert_eq!((mapped.agent.as_str(), mapped.issued_here), ("x", false));
        let unmapped = read_peer(&der(&made), &by_name(NameField::CommonName, "other"));
        assert!(matches!(unmapped, Err(CertificateError::UnmappedName { .. })));
        let absent = read_peer(&der(&made), &by_name(NameField::Dns, "build-bot"));
        assert!(matches!(absent, Err(CertificateError::NotOneName { found: 0, .. })));
    }

    #[test]
    fn ambiguous_and_unfit_certificates_are_refused() {
        let authority = authority();
        let domain = TrustDomain::default();
        let mut params = params("two", NOW, 1, [2; 16]).expect("params");
        for name in ["a", "b"] {
            let uri = domain.agent_id(&agent(name)).try_into().expect("ascii");
            params.subject_alt_names.push(SanType::URI(uri));
        }
        let two = authority.issue_leaf(params, 1).expect("issued");
        let refused = read_peer(&der(&two), &NameRule::Spiffe(domain.clone()));
        assert!(matches!(refused, Err(CertificateError::NotOneName { found: 2, .. })));

        let server =
            authority.issue_server(&["localhost".into(), "127.0.0.1".into(), "::1".into()], NOW, 90, [3; 16]);
        let server = server.expect("issued");
        let facts = read_server(&server.certificate_pem).expect("read");
        assert_eq!(
            facts.names.iter().map(String::as_str).collect::<Vec<_>>(),
            ["127.0.0.1", "::1", "localhost"]
        );
        assert_eq!(facts.not_after, NOW.plus_secs(90 * 86_400));
        let refused = read_peer(&der(&server), &NameRule::Spiffe(domain.clone()));
        assert!(matches!(refused, Err(CertificateError::NotOneName { found: 0, .. })));

        let ca = CertificateDer::from_pem_slice(authority.certificate_pem().as_bytes()).expect("PEM");
        assert_eq!(read_peer(&ca, &NameRule::Spiffe(domain.clone())), Err(CertificateError::IsAuthority));
        let longer = [&ca[..], b"x"].concat();
        assert!(matches!(
            read_peer(&longer, &NameRule::Spiffe(domain)),
            Err(CertificateError::Unreadable { .. })
        ));
    }

    #[test]
    fn what_cannot_be_issued_is_refused() {
        let authority = authority();
        let issue = |name: &str, days| authority.issue_server(&[name.to_owned()], NOW, days, [4; 16]).err();
        assert_eq!(issue("gate.example", 90), None);
        assert_eq!(issue("*.gate.example", 90), None);
        assert!(matches!(issue("gate example", 90), Some(CertificateError::ServerName { .. })));
        assert!(matches!(issue("", 90), Some(CertificateError::ServerName { .. })));
        assert!(matches!(issue("gate.example", 0), Some(CertificateError::Life { .. })));
        assert!(matches!(issue("gate.example", 398), Some(CertificateError::Life { .. })));
        let a = create_authority("A", Curve::P384, NOW, [5; 16]).expect("made");
        let b = create_authority("B", Curve::P384, NOW, [6; 16]).expect("made");
        assert_eq!(Authority::load(&a.certificate_pem, &b.key_pem).err(), Some(CertificateError::ForeignKey));
        assert!(TrustDomain::new("Upper").is_err() && TrustDomain::new("").is_err());
        assert!(!format!("{a:?}").contains("PRIVATE"));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn any_bytes_are_judged_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(read_peer(&bytes, &NameRule::Spiffe(TrustDomain::default())).is_err());
        }

        #[test]
        fn a_changed_certificate_never_panics(at in 0_usize..400, bit in 0_u8..8) {
            let made = authority().issue_agent(&agent("a"), &TrustDomain::default(), NOW, 1, [1; 16]).expect("issued");
            let mut bytes = der(&made).to_vec();
            if let Some(byte) = bytes.get_mut(at) { *byte ^= 1 << bit; }
            let _ = read_peer(&bytes, &NameRule::Spiffe(TrustDomain::default()));
        }
    }
}

//! Who is on the other side of a connection, as far as the connection itself tells.

use std::{net::SocketAddr, sync::Arc};

use rustls::ServerConnection;
use rustls_pki_types::CertificateDer;

/// The other side of one connection. Made once per connection and shared by its requests.
#[derive(Debug)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// The address of ours that it connected to.
    pub local: SocketAddr,
    /// What TLS knows of it; None on a plain connection, which only loopback has.
    pub tls: Option<TlsInfo>,
}

/// What a finished handshake agreed on.
#[derive(Debug)]
pub struct TlsInfo {
    /// The protocol's name, such as `TLSv1_3`.
    pub version: &'static str,
    /// The key exchange, such as `X25519MLKEM768`.
    pub group: &'static str,
    /// The cipher suite, such as `TLS13_AES_256_GCM_SHA384`.
    pub cipher: &'static str,
    /// The name that the client asked for (SNI).
    pub server_name: Option<Arc<str>>,
    /// The client's certificate, verified against the listener's client roots and shown with proof
    /// of its key; None when the client has none.
    pub client_certificate: Option<CertificateDer<'static>>,
}

impl TlsInfo {
    pub(super) fn of(connection: &ServerConnection) -> Self {
        let version = connection.protocol_version().and_then(|v| v.as_str());
        let group = connection.negotiated_key_exchange_group().and_then(|g| g.name().as_str());
        let cipher = connection.negotiated_cipher_suite().and_then(|c| c.suite().as_str());
        let leaf = connection.peer_certificates().and_then(<[_]>::first);
        Self {
            version: version.unwrap_or("unknown"),
            group: group.unwrap_or("unknown"),
            cipher: cipher.unwrap_or("unknown"),
            server_name: connection.server_name().map(Arc::from),
            client_certificate: leaf.map(|c| c.clone().into_owned()),
        }
    }
}

//! One HTTP or HTTPS request to a host name, at the addresses of the Gateway.
//!
//! The client connects to the Gateway's addresses and nowhere else. It never resolves names that tenants chose, never
//! follows a redirect, and reads only the head of an answer. So no tenant can direct it to an internal address.

use std::{
    net::{IpAddr, SocketAddr},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use http_body_util::Empty;
use hyper::{Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme, SupportedProtocolVersion,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::TlsConnector;

use super::certificate::{self, Leaf};

/// How long one request may take in all.
const PATIENCE: Duration = Duration::from_secs(5);

/// The head of one answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status code.
    pub status: u16,
    /// Its `Location` header.
    pub location: Option<String>,
    /// Its `WWW-Authenticate` header.
    pub challenge: Option<String>,
    /// The certificate that the server presented, if there was TLS.
    pub leaf: Option<Leaf>,
    /// The local address of the probe's connection.
    pub from: IpAddr,
}

/// Why a probe got no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProbeError {
    /// There was no connection, or the request timed out.
    Unreachable(String),
    /// The TLS handshake failed.
    Handshake(String),
    /// The connection broke off before an answer came.
    Broken(String),
}

impl std::fmt::Display for ProbeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Unreachable(why) => write!(f, "cannot be reached: {why}"),
            Self::Handshake(why) => write!(f, "refused TLS: {why}"),
            Self::Broken(why) => write!(f, "broke off: {why}"),
        }
    }
}

/// Which TLS versions the client offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// TLS 1.2 and 1.3.
    All,
    /// TLS 1.2 only.
    Old,
}

/// Where a request goes.
#[derive(Clone, Debug, PartialEq)]
pub struct Target {
    /// The addresses of the Gateway; the first one that accepts a connection is asked.
    pub addresses: Vec<String>,
    /// Whether the Gateway reads a header of the PROXY protocol before everything else.
    pub proxy_protocol: bool,
}

/// The header of a proxy that connects for itself, as in a health check: the address of the connection counts (version 2 of
/// the PROXY protocol, section 2.2, command LOCAL).
const LOCAL: [u8; 16] = *b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// Requests a path of a host name over HTTPS.
pub async fn https(target: &Target, port: u16, host: &str, path: &str, offer: Offer) -> Result<Answer, ProbeError> {
    match https_at(target, port, host, path, offer).await {
        // Where a load balancer is between, it writes that header itself.
        Err(ProbeError::Handshake(_)) if target.proxy_protocol => {
            https_at(&Target { proxy_protocol: false, ..target.clone() }, port, host, path, offer).await
        }
        answer => answer,
    }
}

async fn https_at(target: &Target, port: u16, host: &str, path: &str, offer: Offer) -> Result<Answer, ProbeError> {
    bounded(async {
        let (stream, from) = connect(target, port).await?;
        let name = ServerName::try_from(host.to_owned()).map_err(|e| ProbeError::Handshake(e.to_string()))?;
        let tls = TlsConnector::from(Arc::new(config(offer).map_err(|e| ProbeError::Handshake(e.to_string()))?));
        let stream = tls.connect(name, stream).await.map_err(|e| ProbeError::Handshake(e.to_string()))?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let leaf = shown.map(|der| certificate::of_der(der)).transpose().map_err(ProbeError::Handshake)?;
        ask(stream, host, path, leaf, from).await
    })
    .await
}

/// Requests a path of a host name over plain HTTP.
pub async fn http(target: &Target, port: u16, host: &str, path: &str) -> Result<Answer, ProbeError> {
    bounded(async {
        let (stream, from) = connect(target, port).await?;
        ask(stream, host, path, None, from).await
    })
    .await
}

async fn bounded(work: impl Future<Output = Result<Answer, ProbeError>>) -> Result<Answer, ProbeError> {
    tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| Err(ProbeError::Unreachable("it took too long".into())))
}

async fn connect(target: &Target, port: u16) -> Result<(TcpStream, IpAddr), ProbeError> {
    let mut last = "the Gateway has no address".to_owned();
    for address in &target.addresses {
        let at = match address.parse::<IpAddr>() {
            Ok(ip) => SocketAddr::new(ip, port).to_string(),
            Err(_) => format!("{address}:{port}"),
        };
        match TcpStream::connect(&at).await {
            Ok(mut stream) => {
                if target.proxy_protocol {
                    stream.write_all(&LOCAL).await.map_err(|e| ProbeError::Unreachable(e.to_string()))?;
                }
                let from = stream.local_addr().map_err(|e| ProbeError::Unreachable(e.to_string()))?.ip().to_canonical();
                return Ok((stream, from));
            }
            Err(error) => last = format!("{at}: {error}"),
        }
    }
    Err(ProbeError::Unreachable(last))
}

async fn ask<S>(stream: S, host: &str, path: &str, leaf: Option<Leaf>, from: IpAddr) -> Result<Answer, ProbeError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |error: &dyn std::fmt::Display| ProbeError::Broken(error.to_string());
    let (mut sender, connection) =
        http1::Builder::new().max_buf_size(16 * 1024).handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
    let request = Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "helpdesk-operator")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|e| broken(&e))?;
    let mut asked = pin!(sender.send_request(request));
    // The connection is polled only until the head of the answer is here.
    let answer = tokio::select! {
        biased;
        answer = &mut asked => answer,
        _ = connection => asked.await,
    };
    let answer = answer.map_err(|e| broken(&e))?;
    let text = |name: header::HeaderName| answer.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
    Ok(Answer { status: answer.status().as_u16(), location: text(header::LOCATION), challenge: text(header::WWW_AUTHENTICATE), leaf, from })
}

impl Answer {
    /// Whether the status is this one.
    pub fn is(&self, status: StatusCode) -> bool {
        self.status == status.as_u16()
    }
}

fn config(offer: Offer) -> Result<ClientConfig, rustls::Error> {
    const OLD: &[&SupportedProtocolVersion] = &[&rustls::version::TLS12];
    let versions = match offer {
        Offer::All => rustls::ALL_VERSIONS,
        Offer::Old => OLD,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(AnyChain(provider))).with_no_client_auth())
}

/// Accepts any certificate whose private key the server proves to hold. No authority has to be trusted, because the
/// caller compares the certificate with the expected one.
#[derive(Debug)]
struct AnyChain(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyChain {
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

//! Members from Kubernetes' EndpointSlices: unlike DNS they say who is about to stop, and they are never older than the last
//! question. Asked with the service account of the pod, which needs the verb `list` on `endpointslices`.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use colibri_transport::{Body, Client, ClientConfig};
use http::header::{ACCEPT, AUTHORIZATION};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use tokio::time::timeout;

use crate::config::EndpointSlicesConfig;
use crate::error::EdgeError;
use crate::limits::ENDPOINT_SLICES_BYTES_MAX;

/// One question and its answer take at most this long.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A service whose endpoints are the members.
#[derive(Debug)]
pub(super) struct EndpointSlices {
    client: Client,
    url: String,
    port: u16,
    token_file: PathBuf,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Slice>,
}

#[derive(Deserialize)]
struct Slice {
    // Kubernetes leaves it out or says null when there are none.
    #[serde(default)]
    endpoints: Option<Vec<Endpoint>>,
}

#[derive(Deserialize)]
struct Endpoint {
    #[serde(default)]
    addresses: Vec<String>,
    #[serde(default)]
    conditions: Conditions,
}

/// Unknown (left out or null) means ready and serving, and not terminating.
#[derive(Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

impl Conditions {
    fn takes_new_work(&self) -> bool {
        self.serving.or(self.ready).unwrap_or(true) && !self.terminating.unwrap_or(false)
    }
}

impl EndpointSlices {
    /// Reads no file yet but the certificate authority's.
    pub fn new(config: &EndpointSlicesConfig) -> Result<Self, EdgeError> {
        let refuse = |reason: String| EdgeError::Peers(format!("endpoint_slices: {reason}"));
        let is_name = |name: &str| {
            !name.is_empty()
                && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        if !is_name(&config.namespace) || !is_name(&config.service) || config.port == 0 {
            return Err(refuse("`namespace`, `service` and `port` must be those of a service".to_owned()));
        }
        let trust = config.tls.parse().map_err(|error| refuse(format!("tls: {error}")))?;
        let url = format!(
            "{}/apis/discovery.k8s.io/v1/namespaces/{}/endpointslices?labelSelector=kubernetes.io%2Fservice-name%3D{}",
            config.api.trim_end_matches('/'),
            config.namespace,
            config.service,
        );
        let client = Client::new(ClientConfig { trust, http3: false, ..ClientConfig::default() })?;
        Ok(Self { client, url, port: config.port, token_file: config.token_file.clone() })
    }

    /// The members as they are now; an error says why that is not known.
    pub async fn look(&self) -> Result<Vec<String>, String> {
        timeout(TIMEOUT, self.ask()).await.map_err(|_| format!("no answer within {} s", TIMEOUT.as_secs()))?
    }

    async fn ask(&self) -> Result<Vec<String>, String> {
        let mut request = http::Request::get(&self.url).body(Body::empty()).map_err(|error| error.to_string())?;
        request.headers_mut().insert(ACCEPT, HeaderValue::from_static("application/json"));
        request.headers_mut().insert(AUTHORIZATION, bearer(&self.token_file).await?);
        let response = self.client.send(request).await.map_err(|error| error.to_string())?;
        let (head, body) = response.into_parts();
        if head.status != StatusCode::OK {
            return Err(format!(
                "the API server answered {}: may this service account list endpointslices?",
                head.status
            ));
        }
        let bytes = body.read_all(ENDPOINT_SLICES_BYTES_MAX).await.map_err(|error| error.to_string())?;
        let members = self.members(&bytes)?;
        if members.is_empty() { Err("the service has no endpoint that takes work".to_owned()) } else { Ok(members) }
    }

    fn members(&self, list: &[u8]) -> Result<Vec<String>, String> {
        let list: List =
            serde_json::from_slice(list).map_err(|error| format!("not a list of endpoint slices: {error}"))?;
        let endpoints = list.items.into_iter().flat_map(|slice| slice.endpoints.unwrap_or_default());
        let working = endpoints.filter(|endpoint| endpoint.conditions.takes_new_work());
        // Addresses of the type FQDN are none.
        let addresses = working.flat_map(|endpoint| endpoint.addresses).filter_map(|text| text.parse::<IpAddr>().ok());
        Ok(addresses.map(|address| SocketAddr::new(address, self.port).to_string()).collect())
    }
}

/// Read each time: Kubernetes replaces the token every hour.
async fn bearer(file: &Path) -> Result<HeaderValue, String> {
    let token = tokio::fs::read_to_string(file).await.map_err(|error| format!("{}: {error}", file.display()))?;
    let mut value = HeaderValue::try_from(format!("Bearer {}", token.trim()))
        .map_err(|_| format!("{}: not a token", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use colibri_transport::{Request, Response, Server, ServerConfig, handler};
    use tokio_util::sync::CancellationToken;

    use super::*;

    const LIST: &str = r#"{"kind": "EndpointSliceList", "items": [
        {"addressType": "IPv4", "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": true, "serving": true, "terminating": false}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false, "serving": true, "terminating": true}},
            {"addresses": ["10.0.0.3"], "conditions": {"ready": false, "serving": false, "terminating": false}},
            {"addresses": ["10.0.0.4"], "conditions": {"ready": null}}]},
        {"addressType": "IPv6", "endpoints": [{"addresses": ["fd00::5"]}]},
        {"addressType": "FQDN", "endpoints": [{"addresses": ["edge.example"]}]},
        {"addressType": "IPv4", "endpoints": null}]}"#;

    fn api(request: &Request) -> Response {
        let uri = request.uri();
        let is_right = uri.path() == "/apis/discovery.k8s.io/v1/namespaces/colibri/endpointslices"
            && uri.query() == Some("labelSelector=kubernetes.io%2Fservice-name%3Dedges");
        let status = match request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap()) {
            _ if !is_right => 404,
            Some("Bearer secret") => 200,
            _ => 403,
        };
        let mut response = Response::new(Body::full(LIST));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    #[tokio::test]
    async fn who_takes_new_work_is_a_member_and_the_token_is_read_each_time() {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        let answers = handler(|request| async move { api(&request) });
        let server = Server::bind(ServerConfig::plain(address), answers).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let config = EndpointSlicesConfig {
            namespace: "colibri".to_owned(),
            service: "edges".to_owned(),
            port: 8443,
            api: format!("http://{}/", server.address()),
            token_file: dir.path().join("token"),
            tls: "none".to_owned(),
        };
        let stop = CancellationToken::new();
        tokio::spawn(server.serve(stop.clone(), Duration::ZERO));
        let slices = EndpointSlices::new(&config).unwrap();
        assert!(slices.look().await.unwrap_err().contains("token"));
        for (token, known) in [("old", false), ("secret\n", true), ("older", false)] {
            std::fs::write(&config.token_file, token).unwrap();
            match slices.look().await {
                Ok(members) => assert!(known && members == ["10.0.0.1:8443", "10.0.0.4:8443", "[fd00::5]:8443"]),
                Err(error) => assert!(!known && error.contains("403"), "{error}"),
            }
        }
        let bad = EndpointSlicesConfig { service: "a/b".to_owned(), ..config };
        assert!(EndpointSlices::new(&bad).unwrap_err().to_string().contains("endpoint_slices"));
        stop.cancel();
    }
}

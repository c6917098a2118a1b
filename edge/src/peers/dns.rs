//! Members from DNS: all addresses of one name, as a headless Kubernetes service has them, with one port.

use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, LookupIpStrategy, NameServerConfig, ResolveHosts, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;

use crate::error::EdgeError;

/// One question and its answer take at most this long, twice.
const TIMEOUT: Duration = Duration::from_secs(2);

/// A name whose addresses are the members.
#[derive(Debug)]
pub(super) struct HeadlessName {
    name: String,
    port: u16,
    resolver: TokioResolver,
}

impl HeadlessName {
    /// `name` is `HOST:PORT`; without `server`, the system's name servers are asked.
    pub fn new(name: &str, server: Option<SocketAddr>) -> Result<Self, EdgeError> {
        let refuse = |reason: &str| EdgeError::Peers(format!("dns: `{name}` {reason}"));
        let (host, port) = name.rsplit_once(':').ok_or_else(|| refuse("must be HOST:PORT"))?;
        let port: u16 = port.parse().map_err(|_| refuse("must end in a port number"))?;
        if host.is_empty() || port == 0 {
            return Err(refuse("must be HOST:PORT"));
        }
        let builder = match server {
            Some(server) => {
                let at_port = |mut connection: ConnectionConfig| {
                    connection.port = server.port();
                    connection
                };
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(at_port).into();
                let server = NameServerConfig::new(server.ip(), true, connections);
                let config = ResolverConfig::from_name_servers(vec![server]);
                TokioResolver::builder_with_config(config, TokioRuntimeProvider::default())
            }
            None => TokioResolver::builder_tokio().map_err(|error| EdgeError::Peers(format!("dns: {error}")))?,
        };
        let mut builder = builder;
        let options = builder.options_mut();
        // Members are asked for when their time has come, and then as they are now.
        options.cache_size = 0;
        options.timeout = TIMEOUT;
        options.attempts = 1;
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        options.use_hosts_file = ResolveHosts::Auto;
        let resolver = builder.build().map_err(|error| EdgeError::Peers(format!("dns: {error}")))?;
        Ok(Self { name: host.to_owned(), port, resolver })
    }

    /// The members as they are now; an error says why that is not known. Nobody at all is an error, too: this edge should be
    /// among them.
    pub async fn look(&self) -> Result<Vec<String>, String> {
        let found = self.resolver.lookup_ip(self.name.as_str()).await.map_err(|error| error.to_string())?;
        let members: Vec<_> = found.iter().map(|address| SocketAddr::new(address, self.port).to_string()).collect();
        if members.is_empty() { Err(format!("`{}` has no address", self.name)) } else { Ok(members) }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};

    use hickory_resolver::proto::op::{Message, OpCode, ResponseCode};
    use hickory_resolver::proto::rr::rdata::A;
    use hickory_resolver::proto::rr::{RData, Record, RecordType};
    use tokio::net::UdpSocket;

    use super::*;

    /// A name server that knows one name; nothing if it is ill.
    pub type Zone = Arc<Mutex<Option<Vec<Ipv4Addr>>>>;

    pub async fn name_server(zone: Zone) -> SocketAddr {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = socket.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
                let asked = Message::from_vec(&buffer[..length]).unwrap();
                let query = asked.queries[0].clone();
                let mut answer = Message::response(asked.metadata.id, OpCode::Query);
                match &*zone.lock().unwrap() {
                    Some(addresses) if query.query_type() == RecordType::A => {
                        let record = |address: &Ipv4Addr| {
                            Record::from_rdata(query.name().clone(), 5, RData::A(A::from(*address)))
                        };
                        answer.add_answers(addresses.iter().map(record));
                    }
                    Some(_) => {}
                    None => answer.metadata.response_code = ResponseCode::ServFail,
                }
                answer.add_query(query);
                socket.send_to(&answer.to_vec().unwrap(), from).await.unwrap();
            }
        });
        address
    }

    #[tokio::test]
    async fn addresses_of_a_name_and_none_is_an_error() {
        let zone: Zone = Arc::new(Mutex::new(Some(vec![[10, 0, 0, 1].into(), [10, 0, 0, 2].into()])));
        let server = name_server(zone.clone()).await;
        let name = HeadlessName::new("edges.example.:8443", Some(server)).unwrap();
        let mut members = name.look().await.unwrap();
        members.sort();
        assert_eq!(members, ["10.0.0.1:8443", "10.0.0.2:8443"]);
        for nothing in [Some(Vec::new()), None] {
            *zone.lock().unwrap() = nothing;
            assert!(name.look().await.is_err());
        }
    }

    #[tokio::test]
    async fn names_must_have_a_port() {
        for bad in ["edges.example", "edges.example:", ":8443", "edges.example:0", "edges.example:99999"] {
            let error = HeadlessName::new(bad, None).unwrap_err().to_string();
            assert!(error.contains("peers: dns"), "{error}");
        }
    }
}

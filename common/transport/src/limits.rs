//! Every bound of this package: what a peer can make it hold, wait for or repeat.

/// Concurrent request streams a peer may hold on one HTTP/3 or HTTP/2 connection (more costs memory for no throughput).
pub const STREAMS_MAX: u32 = 100;
/// Unidirectional QUIC streams a peer may open (HTTP/3 needs three; one more for grease, and some room).
pub const UNI_STREAMS_MAX: u32 = 8;
/// Largest header section that is accepted, in bytes; a server reads up to twice as much, to say why it refuses.
pub const HEADER_BYTES_MAX: usize = 32 * 1024;
/// Most header fields in one HTTP/1.1 message; a server reads up to twice as many, to say why it refuses.
pub const HEADER_FIELDS_MAX: usize = 100;
/// Connections of a server, TCP and QUIC together.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Connections of one client (IPv4 address or IPv6 /64) by default: half of all.
pub const CLIENT_CONNECTIONS_MAX: usize = CONNECTIONS_MAX / 2;
/// Connections over a Unix socket of one user other than root and the server's own.
pub const UNIX_PEER_CONNECTIONS_MAX: usize = 32;
/// Clients of a server whose use is remembered; those that use nothing are forgotten first.
pub const CLIENTS_MAX: usize = 65_536;
/// Requests that a client may give up per second on one connection; more are an attack.
pub const RESETS_PER_S_MAX: u64 = 200;
/// UDP sockets of one server.
pub const SOCKETS_MAX: usize = 64;
/// Datagrams that wait to be taken by the socket they belong to.
pub const PASSED_ON_MAX: usize = 1024;
/// Largest HTTP/3 PRIORITY_UPDATE frame that is looked at, in bytes.
pub const PRIORITY_UPDATE_BYTES_MAX: usize = 64;
/// Largest request body by default, in bytes (uploads raise it).
pub const REQUEST_BODY_BYTES_MAX: u64 = 1 << 20;
/// Chunks that wait in a [`crate::Body::channel`].
pub const BODY_CHANNEL_CHUNKS: usize = 4;
/// Pieces are sent in this size where more is ready: smaller ones are gathered (HTTP/3), larger ones cut, in bytes.
pub const PIECE_BYTES: usize = 64 * 1024;
/// Receive window of one stream on the client, in bytes: 100 ms at 1 Gb/s.
pub const CLIENT_STREAM_WINDOW_BYTES: u32 = 12_500_000;
/// Receive window of one connection on the client, in bytes: eight stalled readers do not stop the ninth.
pub const CLIENT_CONNECTION_WINDOW_BYTES: u32 = 8 * CLIENT_STREAM_WINDOW_BYTES;
/// Receive window of one stream on the server (uploads), in bytes.
pub const SERVER_STREAM_WINDOW_BYTES: u32 = 2 << 20;
/// Receive window of one connection on the server, in bytes.
pub const SERVER_CONNECTION_WINDOW_BYTES: u32 = 8 << 20;
/// Sent but unacknowledged bytes that one QUIC connection may hold.
pub const SEND_WINDOW_BYTES: u64 = 16 << 20;
/// Receive and send buffer asked for UDP sockets, in bytes (the system may give less).
pub const UDP_BUFFER_BYTES: usize = 4 << 20;
/// Request and response bytes one HTTP/2 stream may buffer for sending.
pub const HTTP2_SEND_BUFFER_BYTES: usize = 1 << 20;
/// Authorities that one client remembers (idle ones are forgotten first).
pub const AUTHORITIES_MAX: usize = 1024;
/// Networks of this host on which a client remembers whether UDP leads somewhere; the one longest unused goes first.
pub const NETWORKS_MAX: usize = 16;
/// HTTP/1.1 connections of a client to one authority, by default.
pub const HTTP1_CONNECTIONS_MAX: usize = 16;
/// Servers of which a client keeps sessions to resume; the one that came first makes room.
pub const RESUMED_SERVERS_MAX: usize = 8;
/// UDP sockets of one client for each address family, and HTTP/3 connections to one authority.
pub const UDP_SOCKETS_MAX: usize = 16;
/// UDP sockets that several clients share, for each address family.
pub const SHARED_SOCKETS_MAX: usize = 256;
/// Bytes on their way in one direction of a link that is made in this process; what comes then is lost.
pub const LINK_HELD_BYTES_MAX: usize = 16 << 20;
/// With so many requests in flight on each HTTP/3 connection to an authority, another is made.
pub const HTTP3_BUSY_STREAMS: usize = 8;
/// Addresses of one name that a client tries.
pub const ADDRESSES_MAX: usize = 8;
/// Largest PEM file (certificate, key, trust anchors) that is read, in bytes.
pub const PEM_BYTES_MAX: u64 = 4 << 20;
/// Sessions that clients of one listener may resume; the oldest go first.
pub const SESSIONS_MAX: usize = 4096;
/// Certificate pins in one trust setting.
pub const PINS_MAX: usize = 64;
/// Largest window of zstd-coded documents, as a power of two in bytes: what RFC 9659 lets a recipient expect.
pub const ZSTD_WINDOW_LOG_MAX: u32 = 23;

const _: () = assert!(STREAMS_MAX <= 100, "more streams were measured to cost memory without throughput");
const _: () = assert!(CLIENT_STREAM_WINDOW_BYTES <= CLIENT_CONNECTION_WINDOW_BYTES, "a stream fits its connection");
const _: () = assert!(SERVER_STREAM_WINDOW_BYTES <= SERVER_CONNECTION_WINDOW_BYTES, "a stream fits its connection");

/// Name and value of each limit, for the documentation and its test.
pub const ALL: &[(&str, u64)] = &[
    ("STREAMS_MAX", STREAMS_MAX as u64),
    ("UNI_STREAMS_MAX", UNI_STREAMS_MAX as u64),
    ("HEADER_BYTES_MAX", HEADER_BYTES_MAX as u64),
    ("HEADER_FIELDS_MAX", HEADER_FIELDS_MAX as u64),
    ("CONNECTIONS_MAX", CONNECTIONS_MAX as u64),
    ("CLIENT_CONNECTIONS_MAX", CLIENT_CONNECTIONS_MAX as u64),
    ("UNIX_PEER_CONNECTIONS_MAX", UNIX_PEER_CONNECTIONS_MAX as u64),
    ("CLIENTS_MAX", CLIENTS_MAX as u64),
    ("RESETS_PER_S_MAX", RESETS_PER_S_MAX),
    ("SOCKETS_MAX", SOCKETS_MAX as u64),
    ("PASSED_ON_MAX", PASSED_ON_MAX as u64),
    ("PRIORITY_UPDATE_BYTES_MAX", PRIORITY_UPDATE_BYTES_MAX as u64),
    ("REQUEST_BODY_BYTES_MAX", REQUEST_BODY_BYTES_MAX),
    ("BODY_CHANNEL_CHUNKS", BODY_CHANNEL_CHUNKS as u64),
    ("PIECE_BYTES", PIECE_BYTES as u64),
    ("CLIENT_STREAM_WINDOW_BYTES", CLIENT_STREAM_WINDOW_BYTES as u64),
    ("CLIENT_CONNECTION_WINDOW_BYTES", CLIENT_CONNECTION_WINDOW_BYTES as u64),
    ("SERVER_STREAM_WINDOW_BYTES", SERVER_STREAM_WINDOW_BYTES as u64),
    ("SERVER_CONNECTION_WINDOW_BYTES", SERVER_CONNECTION_WINDOW_BYTES as u64),
    ("SEND_WINDOW_BYTES", SEND_WINDOW_BYTES),
    ("UDP_BUFFER_BYTES", UDP_BUFFER_BYTES as u64),
    ("HTTP2_SEND_BUFFER_BYTES", HTTP2_SEND_BUFFER_BYTES as u64),
    ("AUTHORITIES_MAX", AUTHORITIES_MAX as u64),
    ("NETWORKS_MAX", NETWORKS_MAX as u64),
    ("HTTP1_CONNECTIONS_MAX", HTTP1_CONNECTIONS_MAX as u64),
    ("RESUMED_SERVERS_MAX", RESUMED_SERVERS_MAX as u64),
    ("UDP_SOCKETS_MAX", UDP_SOCKETS_MAX as u64),
    ("SHARED_SOCKETS_MAX", SHARED_SOCKETS_MAX as u64),
    ("LINK_HELD_BYTES_MAX", LINK_HELD_BYTES_MAX as u64),
    ("HTTP3_BUSY_STREAMS", HTTP3_BUSY_STREAMS as u64),
    ("ADDRESSES_MAX", ADDRESSES_MAX as u64),
    ("PEM_BYTES_MAX", PEM_BYTES_MAX),
    ("SESSIONS_MAX", SESSIONS_MAX as u64),
    ("PINS_MAX", PINS_MAX as u64),
    ("ZSTD_WINDOW_LOG_MAX", ZSTD_WINDOW_LOG_MAX as u64),
];

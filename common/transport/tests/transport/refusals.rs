//! What a server refuses by itself, it refuses with a reason that programs and people can read, whatever the protocol.

use colibri_transport::Response;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::hostile::http3_by_hand;
use crate::support::{Running, WAYS, Way, fetch, get, says};

/// The problem document of an answer, which must be one, and agree with its status.
pub async fn problem(response: Response) -> String {
    let (head, body) = response.into_parts();
    assert_eq!(head.headers["content-type"], "application/problem+json");
    assert_eq!(head.headers["cache-control"], "no-store");
    let text = body.read_all(10_000).await.unwrap();
    assert_eq!(head.headers["content-length"], text.len().to_string());
    let text = String::from_utf8(text.to_vec()).unwrap();
    assert!(text.contains(&format!(r#""status":{},"#, head.status.as_u16())), "{text}");
    // One flat object of plain strings and a number.
    let inner = text.strip_prefix('{').and_then(|text| text.strip_suffix('}')).unwrap();
    assert!(!inner.contains(['{', '}', '\\', '\n']) && inner.matches('"').count() == 14, "{text}");
    text
}

#[tokio::test]
async fn too_much_header_is_told_so() {
    for way in WAYS {
        let server = Running::way(way, says("fine"));
        let (client, url) = (way.client(), way.url(server.address, "/"));
        let with = |fields: usize, bytes: usize| {
            let mut request = get(&url);
            for number in 0..fields {
                let name: http::HeaderName = format!("x-filler-{number}").parse().unwrap();
                request.headers_mut().insert(name, "f".repeat(bytes).parse().unwrap());
            }
            request
        };
        assert_eq!(client.send(with(30, 900)).await.unwrap().status(), 200, "{way:?}: within the bound");
        for head in [false, true] {
            let mut request = with(10, 4000);
            if head {
                *request.method_mut() = http::Method::HEAD;
            }
            let refused = client.send(request).await.unwrap();
            assert_eq!(refused.status(), 431, "{way:?}");
            if head {
                assert_eq!(refused.headers()["content-type"], "application/problem+json");
                assert_eq!(refused.into_body().read_all(1).await.unwrap(), "");
            } else {
                let problem = problem(refused).await;
                assert!(problem.contains(r#""type":"urn:colibri:problem:header-too-large""#), "{problem}");
                assert!(problem.contains("may have 32768 bytes"), "{problem}");
            }
        }
        if way == Way::PlainHttp1 {
            let refused = client.send(with(120, 3)).await.unwrap();
            assert_eq!(refused.status(), 431);
            assert!(problem(refused).await.contains("may have 100 fields"));
        }
        assert_eq!(fetch(&client, &url).await.unwrap(), "fine", "{way:?}");
    }
}

#[tokio::test]
async fn a_tunnel_and_a_length_that_is_none_are_told_so() {
    let server = Running::way(Way::PlainHttp1, says("never"));
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 405 ") && answer.to_lowercase().contains("\r\nallow:"), "{answer}");
    assert!(answer.contains(r#"{"type":"urn:colibri:problem:method-not-allowed""#), "{answer}");
    // hyper itself refuses such a length; over HTTP/3 it gets here: `:path /`, `:method POST`, `:scheme https`,
    // `:authority x`, `content-length: x`.
    let server = Running::way(Way::Http3, says("never"));
    let (connection, _control) = http3_by_hand(server.address).await;
    let (mut send, mut receive) = connection.open_bi().await.unwrap();
    send.write_all(&[1, 11, 0, 0, 0xc1, 0xd4, 0xd7, 0x50, 1, b'x', 0x54, 1, b'x']).await.unwrap();
    send.finish().unwrap();
    let answer = receive.read_to_end(10_000).await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.contains(r#"{"type":"urn:colibri:problem:bad-request""#), "{answer}");
    assert!(answer.contains("Content-Length is not one decimal number"), "{answer}");
}

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn outgoing(allow: &str) -> Outgoing {
    Outgoing::new(config(allow)).unwrap()
}

fn config(allow: &str) -> OutgoingConfig {
    OutgoingConfig {
        policy: allow.parse().unwrap(),
        connect_timeout: Duration::from_secs(30),
        timeout: Duration::from_secs(60),
        per_endpoint: 8,
        total: 64,
        authorities: None,
    }
}

fn call(url: impl Into<String>, timeout: Duration) -> Call {
    let (url, headers) = (url.into().parse().unwrap(), HeaderMap::new());
    Call { url, headers, body: Bytes::from_static(b"{}"), timeout }
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(300);

/// An endpoint that reads a request's head and does something; the address, and how many connections it has had.
async fn endpoint<F: Future<Output = ()> + Send + 'static>(
    act: impl Fn(TcpStream) -> F + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    tokio::spawn(async move {
        let act = Arc::new(act);
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            let act = act.clone();
            tokio::spawn(async move {
                let mut seen = Vec::new();
                while !seen.ends_with(b"\r\n\r\n{}") {
                    let mut byte = [0; 512];
                    match stream.read(&mut byte).await {
                        Ok(0) | Err(_) => return,
                        Ok(read) => seen.extend_from_slice(&byte[..read]),
                    }
                }
                act(stream).await;
            });
        }
    });
    (address, connections)
}

async fn says(mut stream: TcpStream, text: &'static str) {
    let _ = stream.write_all(text.as_bytes()).await;
    // The peer decides when it is over.
    let _ = stream.read(&mut [0; 16]).await;
}

async fn hangs(stream: TcpStream) {
    let _open = stream;
    std::future::pending().await
}

#[test]
fn only_public_addresses_are_called_unless_a_network_is_listed() {
    let policy: Policy = "public".parse().unwrap();
    for address in [
        "127.0.0.1",
        "127.9.9.9",
        "0.0.0.0",
        "10.1.2.3",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.0.192",
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.9",
        "224.0.0.1",
        "255.255.255.255",
        "240.0.0.1",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:169.254.169.254",
        "::127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:db8::1",
        "2001::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "100::1",
        "4000::1",
    ] {
        assert!(policy.check("x.example", address.parse().unwrap(), false).is_err(), "{address}");
    }
    for address in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1"] {
        let address = address.parse().unwrap();
        assert_eq!(policy.check("x.example", address, false), Ok(()), "{address}");
        assert!(policy.check("x.example", address, true).unwrap_err().contains("not encrypted"));
    }
    let policy: Policy = "127.0.0.0/8, 10.0.0.1,fd00::/8".parse().unwrap();
    for address in ["127.0.0.1", "::ffff:127.0.0.1", "10.0.0.1", "fd12::1"] {
        assert_eq!(policy.check("x", address.parse().unwrap(), true), Ok(()), "{address}");
    }
    for address in ["10.0.0.2", "1.1.1.1", "::1"] {
        assert!(policy.check("x", address.parse().unwrap(), false).is_err(), "{address}");
    }
}

#[test]
fn names_that_are_listed_lead_to_public_addresses_only() {
    let policy: Policy = "hooks.example.com,*.crm.example".parse().unwrap();
    let (public, private) = ("1.1.1.1".parse().unwrap(), "10.0.0.1".parse().unwrap());
    for name in ["hooks.example.com", "HOOKS.example.com.", "a.crm.example", "a.b.crm.example"] {
        assert_eq!(policy.check(name, public, false), Ok(()), "{name}");
        assert!(policy.check(name, private, false).is_err(), "{name}");
    }
    for name in ["example.com", "xhooks.example.com", "crm.example", "xcrm.example", "1.1.1.1"] {
        assert!(policy.check(name, public, false).unwrap_err().contains("not in outgoing_allow"), "{name}");
    }
    for text in ["none", "public", "hooks.example.com,*.crm.example,10.0.0.0/8"] {
        assert_eq!(text.parse::<Policy>().unwrap().to_string(), text);
    }
    for wrong in ["http://x", "10.0.0.0/99", "a b", "*", "*.*.x", "x..y"] {
        assert!(wrong.parse::<Policy>().unwrap_err().contains(wrong), "{wrong}");
    }
}

#[test]
fn a_url_is_https_or_http_with_a_host_and_no_user() {
    for good in ["https://hooks.example.com/a?b=c", "http://127.0.0.1:80", "https://[::1]:8443/x"] {
        good.parse::<Url>().unwrap();
    }
    for wrong in
        ["", "hooks.example.com", "/x", "ftp://x/", "https://", "https://u:p@x/", "file:///etc/passwd", "https://a b"]
    {
        assert!(wrong.parse::<Url>().is_err(), "{wrong}");
    }
    let message = format!("https://x/{}", "a".repeat(3000)).parse::<Url>().unwrap_err();
    assert!(message.contains("limit is 2048"), "{message}");
}

#[tokio::test]
async fn what_is_not_allowed_gets_no_connection_whatever_name_leads_there() {
    let (address, connections) = endpoint(|stream| says(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    for allow in ["public", "none", "localhost", "*.localhost", "10.0.0.0/8"] {
        for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1", "2130706433"] {
            let url = format!("http://{host}:{}/", address.port());
            let error = outgoing(allow).call(call(url, LONG)).await.unwrap_err();
            assert_ne!(error.failure, CallFailure::Broken, "{allow} {host}: {error}");
        }
    }
    assert_eq!(connections.load(Ordering::SeqCst), 0);
    let reply =
        outgoing("127.0.0.0/8").call(call(format!("http://localhost:{}/", address.port()), LONG)).await.unwrap();
    assert!(reply.is_success());
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let (secret, asked) = endpoint(|stream| says(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    for to in ["http://169.254.169.254/latest/meta-data/".to_owned(), format!("http://{secret}/")] {
        let answer = format!("HTTP/1.1 307 Temporary Redirect\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").leak();
        let (address, _) = endpoint(|stream| says(stream, answer)).await;
        let reply = outgoing("127.0.0.1").call(call(format!("http://{address}/"), LONG)).await.unwrap();
        assert_eq!((reply.status, reply.is_success()), (307, false));
    }
    assert_eq!(asked.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_given_up_in_time() {
    let (address, _) = endpoint(hangs).await;
    let error = outgoing("127.0.0.1").call(call(format!("http://{address}/"), SHORT)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::TimedOut);
    assert!(error.message.contains("300 ms"), "{error}");
}

#[tokio::test]
async fn a_head_that_comes_byte_by_byte_is_given_up_in_time() {
    let (address, _) = endpoint(async |mut stream: TcpStream| {
        for byte in b"HTTP/1.1 200 OK\r\n".iter().chain(b"x: y\r\n".iter().cycle()) {
            if stream.write_all(&[*byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let error = outgoing("127.0.0.1").call(call(format!("http://{address}/"), SHORT)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::TimedOut, "{error}");
}

#[tokio::test]
async fn of_a_huge_answer_only_the_beginning_is_read() {
    let written = Arc::new(AtomicUsize::new(0));
    let counted = written.clone();
    let (address, _) = endpoint(move |mut stream: TcpStream| {
        let counted = counted.clone();
        async move {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1073741824\r\n\r\n").await;
            let block = vec![b'x'; 64 * 1024];
            while let Ok(written) = stream.write(&block).await {
                counted.fetch_add(written, Ordering::SeqCst);
            }
        }
    })
    .await;
    let reply = outgoing("127.0.0.1").call(call(format!("http://{address}/"), LONG)).await.unwrap();
    assert!(reply.is_success());
    assert_eq!(reply.excerpt, "x".repeat(KEPT_BYTES));
    // What the kernel's buffers hold comes on top.
    assert!(written.load(Ordering::SeqCst) < 64 << 20);
}

#[tokio::test]
async fn a_huge_head_is_refused() {
    let (address, _) = endpoint(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nx: ").await;
        while stream.write_all(&[b'y'; 4096]).await.is_ok() {}
    })
    .await;
    let error = outgoing("127.0.0.1").call(call(format!("http://{address}/"), LONG)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::Broken, "{error}");
}

/// A peer may close an idle connection at any time, also just as it is used again.
#[tokio::test]
async fn a_call_that_meets_a_connection_closed_meanwhile_is_made_again_on_a_new_one() {
    // It answers one call on each connection, and hangs up at the next.
    let (address, connections) = endpoint(|stream| says(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")).await;
    let calls = outgoing("127.0.0.1");
    for made in 1..=20 {
        let reply = calls.call(call(format!("http://{address}/"), LONG)).await.unwrap();
        assert!(reply.is_success(), "call {made}");
    }
    assert!(connections.load(Ordering::SeqCst) <= 20);
    // The first call on a connection has been seen, and is not made again.
    let (address, connections) = endpoint(async |stream: TcpStream| drop(stream)).await;
    let error = calls.call(call(format!("http://{address}/"), LONG)).await.unwrap_err();
    assert_eq!((error.failure, connections.load(Ordering::SeqCst)), (CallFailure::Broken, 1), "{error}");
}

#[tokio::test]
async fn a_call_whose_answer_has_begun_is_not_made_again() {
    let (address, connections) = endpoint(async |mut stream: TcpStream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let mut seen = Vec::new();
        while !seen.ends_with(b"\r\n\r\n{}") && stream.read_buf(&mut seen).await.is_ok_and(|read| read > 0) {}
        let _ = stream.write_all(b"HTTP/1.1 200 O").await;
    })
    .await;
    let calls = outgoing("127.0.0.1");
    assert!(calls.call(call(format!("http://{address}/"), LONG)).await.unwrap().is_success());
    let error = calls.call(call(format!("http://{address}/"), LONG)).await.unwrap_err();
    assert_eq!((error.failure, connections.load(Ordering::SeqCst)), (CallFailure::Broken, 1), "{error}");
}

#[tokio::test]
async fn an_endpoint_says_when_to_come_again() {
    for (header, after) in [
        ("retry-after: 7", Some(7)),
        ("retry-after: 99999999", Some(24 * 3600)),
        ("date: Wed, 21 Oct 2026 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2026 07:29:30 GMT", Some(90)),
        ("date: Wed, 21 Oct 2026 07:28:00 GMT\r\nretry-after: Wed, 21 Oct 2026 07:00:00 GMT", Some(0)),
        // Without a date of its own, ours counts.
        ("retry-after: Wed, 21 Oct 2026 07:28:06 GMT", Some(6)),
        ("retry-after: Wed, 21 Oct 2026 07:27:00 GMT", Some(0)),
        ("retry-after: soon", None),
        ("retry-after: -1", None),
    ] {
        let answer = format!("HTTP/1.1 503 Unavailable\r\n{header}\r\ncontent-length: 4\r\n\r\nbusy").leak();
        let (address, _) = endpoint(|stream| says(stream, answer)).await;
        let reply = outgoing("127.0.0.1").call(call(format!("http://{address}/"), LONG)).await.unwrap();
        // Wed, 21 Oct 2026 07:28:00 GMT.
        let asked = reply.retry_after.map(|asked| asked.from(1_792_567_680_000));
        assert_eq!((reply.status, asked), (503, after.map(Duration::from_secs)), "{header}");
        assert_eq!(reply.excerpt, "busy");
    }
}

#[tokio::test]
async fn what_is_no_answer_is_told_apart() {
    let (address, _) = endpoint(|stream| says(stream, "SSH-2.0-x\r\n\r\n")).await;
    let error = outgoing("127.0.0.1").call(call(format!("http://{address}/"), LONG)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::Broken, "{error}");
    let (address, _) = endpoint(async |_| {}).await;
    let error = outgoing("127.0.0.1").call(call(format!("http://{address}/"), LONG)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::Broken, "{error}");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = outgoing("127.0.0.1").call(call(format!("http://{free}/"), LONG)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::Unreachable, "{error}");
    assert!(error.message.contains(&free.to_string()), "{error}");
    let error = outgoing("public").call(call("http://127.0.0.1:1/", LONG)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::Refused, "{error}");
    assert!(error.message.contains("outgoing_allow"), "{error}");
}

#[tokio::test]
async fn an_endpoint_with_all_its_turns_taken_keeps_nobody_else_waiting() {
    let (hanging, connections) = endpoint(hangs).await;
    let (well, _) = endpoint(|stream| says(stream, "HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")).await;
    let outgoing = Arc::new(outgoing("127.0.0.1"));
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let outgoing = outgoing.clone();
            tokio::spawn(async move { outgoing.call(call(format!("http://{hanging}/"), LONG)).await })
        })
        .collect();
    for _ in 0..20 {
        let reply = outgoing.call(call(format!("http://{well}/"), LONG)).await.unwrap();
        assert_eq!(reply.status, 204);
    }
    let error = outgoing.call(call(format!("http://{hanging}/"), SHORT)).await.unwrap_err();
    assert_eq!(error.failure, CallFailure::Busy);
    assert!(connections.load(Ordering::SeqCst) <= 8);
    calls.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn https_believes_the_configured_authority_and_no_other() {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let server = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(server));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            let _ = stream.read(&mut [0; 16]).await;
        }
    });
    let url = format!("https://localhost:{port}/");
    let believing = OutgoingConfig { authorities: Some(made.cert.pem().into_bytes()), ..config("127.0.0.1") };
    assert!(Outgoing::new(believing).unwrap().call(call(&url, LONG)).await.unwrap().is_success());
    let error = outgoing("127.0.0.1").call(call(&url, LONG)).await.unwrap_err();
    assert!(error.message.to_lowercase().contains("certificate"), "{error}");
    let error = Outgoing::new(OutgoingConfig { authorities: Some(b"x".to_vec()), ..config("none") }).unwrap_err();
    assert!(error.contains("no certificate"), "{error}");
}

#[tokio::test]
async fn an_address_is_judged_before_it_is_called_as_far_as_it_can_be() {
    let judge = |allow: &str, url: &str| outgoing(allow).judge(&url.parse().unwrap());
    for (allow, url) in [
        ("public", "https://crm.example.com/hook"),
        ("public", "https://1.1.1.1/"),
        ("crm.example.com", "https://crm.example.com/"),
        ("127.0.0.0/8", "http://127.0.0.1:8080/"),
        ("127.0.0.0/8", "http://localhost/"),
        ("10.0.0.0/8", "http://erp.internal/"),
    ] {
        assert_eq!(judge(allow, url), Ok(()), "{allow} {url}");
    }
    for (allow, url, why) in [
        ("public", "http://127.0.0.1/", "loopback"),
        ("public", "https://10.1.2.3/", "private"),
        ("public", "https://[::1]/", "loopback"),
        ("public", "https://localhost/", "loopback"),
        ("public", "http://crm.example.com/", "not encrypted"),
        ("crm.example.com", "https://erp.example.com/", "not in outgoing_allow"),
        ("none", "https://crm.example.com/", "not in outgoing_allow"),
    ] {
        let error = judge(allow, url).unwrap_err();
        assert!(error.contains(why), "{allow} {url}: {error}");
    }
}

/// Calls that hang at one address of a host leave turns for the others.
#[tokio::test]
async fn a_slow_address_holds_up_no_other_of_its_host() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = vec![0; 1024];
                let read = stream.read(&mut head).await.unwrap_or(0);
                if head[..read].starts_with(b"POST /slow") {
                    return hangs(stream).await;
                }
                says(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            });
        }
    });
    let calls = Arc::new(outgoing("127.0.0.1"));
    let call_to = |path: &str| {
        let (calls, url) = (Arc::clone(&calls), format!("http://{address}{path}"));
        async move { calls.call(call(url, LONG)).await }
    };
    // More than the host may have.
    let slow: Vec<_> = (0..50).map(|n| tokio::spawn(call_to(&format!("/slow?n={n}")))).collect();
    while calls.turns(&format!("{address}/slow"), 8).available_permits() > 0 {
        tokio::task::yield_now().await;
    }
    assert!(call_to("/fast").await.unwrap().is_success());
    slow.iter().for_each(tokio::task::JoinHandle::abort);
}

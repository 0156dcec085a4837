//! A server on a free port, and a client that is nothing but a socket and the crate's message structs.

use std::fmt::Debug;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader};
use kafka_protocol::protocol::{Decodable, Encodable, Request, StrBytes};
use tempfile::TempDir;
use tidelog::record::{BatchBuilder, BatchOptions, Compression};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::nulls;

/// Only against a test that hangs; nothing is asserted of times.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running {
    pub server: Server,
    pub dir: TempDir,
}

impl Running {
    pub async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), |_| {}).await
    }

    pub async fn start_with(change: impl FnOnce(&mut ServerConfig)) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), change).await
    }

    pub async fn start_in(dir: TempDir, change: impl FnOnce(&mut ServerConfig)) -> Self {
        let mut config = ServerConfig {
            data_dir: dir.path().join("data"),
            listen: "127.0.0.1:0".to_owned(),
            ..ServerConfig::default()
        };
        change(&mut config);
        Self { server: Server::start(config).await.unwrap(), dir }
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.server.kafka_addresses()[0]).await
    }

    pub async fn stop(self) -> TempDir {
        tokio::time::timeout(PATIENCE, self.server.stop()).await.expect("the server does not stop");
        self.dir
    }
}

pub struct Client {
    pub stream: TcpStream,
    correlation: i32,
}

impl Client {
    pub async fn connect(address: std::net::SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.unwrap(), correlation: 0 }
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("writing hangs").unwrap();
    }

    /// Sends a body behind a head, and returns the correlation id.
    pub async fn send_raw(&mut self, key: i16, version: i16, flexible: bool, body: &[u8]) -> i32 {
        self.correlation += 1;
        let mut out = BytesMut::new();
        out.put_i32(0);
        out.put_i16(key);
        out.put_i16(version);
        out.put_i32(self.correlation);
        out.put_i16(4);
        out.put_slice(b"test");
        if flexible {
            out.put_u8(0);
        }
        out.put_slice(body);
        let length = i32::try_from(out.len() - 4).unwrap();
        out[..4].copy_from_slice(&length.to_be_bytes());
        self.bytes(&out).await;
        self.correlation
    }

    pub async fn send<Q: Request>(&mut self, version: i16, request: &Q) -> i32 {
        let mut body = BytesMut::new();
        self.correlation += 1;
        body.put_i32(0);
        RequestHeader::default()
            .with_request_api_key(Q::KEY)
            .with_request_api_version(version)
            .with_correlation_id(self.correlation)
            .with_client_id(Some(StrBytes::from_static_str("test")))
            .encode(&mut body, ApiKey::try_from(Q::KEY).unwrap().request_header_version(version))
            .unwrap();
        request.encode(&mut body, version).unwrap();
        let length = i32::try_from(body.len() - 4).unwrap();
        body[..4].copy_from_slice(&length.to_be_bytes());
        self.bytes(&body).await;
        self.correlation
    }

    /// The next answer without its length, `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Bytes> {
        let read = async {
            let length = self.stream.read_u32().await.ok()?;
            let mut answer = vec![0; length as usize];
            self.stream.read_exact(&mut answer).await.ok()?;
            Some(Bytes::from(answer))
        };
        tokio::time::timeout(PATIENCE, read).await.expect("no answer")
    }

    /// The answer to a request of this kind, with its correlation id. It is as long as it says, without nulls where the
    /// version has none, and without tagged fields that say nothing (trap 2): written again it is the same.
    pub async fn answer<Q: Request>(&mut self, version: i16) -> (i32, Q::Response)
    where
        Q::Response: Decodable + Encodable + Debug,
    {
        let mut answer = self.next().await.expect("the connection ended instead of an answer");
        let correlation = answer.get_i32();
        if ApiKey::try_from(Q::KEY).unwrap().response_header_version(version) == 1 {
            assert_eq!(answer.get_u8(), 0, "a tagged field in the head");
        }
        let whole = answer.clone();
        let response = Q::Response::decode(&mut answer, version).unwrap();
        assert!(!answer.has_remaining(), "{} bytes behind the answer", answer.remaining());
        let mut again = BytesMut::new();
        response.encode(&mut again, version).unwrap();
        assert!(again == whole, "key {} in version {version}: {whole:02x?} instead of {again:02x?}", Q::KEY);
        nulls::check(Q::KEY, version, &response);
        (correlation, response)
    }

    pub async fn call<Q: Request>(&mut self, version: i16, request: &Q) -> Q::Response
    where
        Q::Response: Decodable + Encodable + Debug,
    {
        let sent = self.send(version, request).await;
        let (correlation, response) = self.answer::<Q>(version).await;
        assert_eq!(sent, correlation);
        response
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

pub fn batch(values: &[&str]) -> Bytes {
    batch_of(BatchOptions::default(), values)
}

pub fn batch_of(options: BatchOptions, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(options);
    for value in values {
        builder.push(1_000, Some(b"k"), Some(value.as_bytes()), &[("h", Some(b"v"))]);
    }
    builder.build().freeze()
}

pub fn packed(compression: Compression) -> BatchOptions {
    BatchOptions { compression, ..BatchOptions::default() }
}

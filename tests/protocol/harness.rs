//! A real server on a free port and a temporary directory, and a client that is nothing but a socket.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tempfile::TempDir;
use tidelog::base::{ErrorKind, Isolation};
use tidelog::protocol::{
    Ack, CreateTopic, ErrorBody, Frame, FrameDecoder, Hello, HelloOk, Message, Produce, ProduceOk, Request, Subscribe,
    SubscribeOk, TopicOk, encode_frame, flags,
};
use tidelog::record::{BatchBuilder, BatchOptions};
use tidelog::server::Server;
use tidelog::server::config::ServerConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Only against a test that hangs; nothing is asserted of times.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Running {
    pub server: Server,
    pub dir: TempDir,
}

impl Running {
    pub async fn start(change: impl FnOnce(&mut ServerConfig)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = start_in(&dir, change).await;
        Self { server, dir }
    }

    pub fn address(&self) -> std::net::SocketAddr {
        self.server.addresses()[0]
    }

    /// A connection that has said nothing yet.
    pub async fn socket(&self) -> Raw {
        Raw::new(TcpStream::connect(self.address()).await.unwrap())
    }

    /// A connection after its handshake.
    pub async fn client(&self) -> Raw {
        let mut raw = self.socket().await;
        raw.hello().await;
        raw
    }

    pub async fn stop(self) -> TempDir {
        tokio::time::timeout(PATIENCE, self.server.stop()).await.expect("the server does not stop");
        self.dir
    }
}

pub async fn start_in(dir: &TempDir, change: impl FnOnce(&mut ServerConfig)) -> Server {
    let mut config = ServerConfig {
        data_dir: dir.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        // Its bodies ask more of the limits than some of these tests set.
        http_listen: "off".to_owned(),
        ..ServerConfig::default()
    };
    change(&mut config);
    Server::start(config).await.unwrap()
}

pub struct Raw {
    pub stream: TcpStream,
    buffer: BytesMut,
    decoder: FrameDecoder,
}

impl Raw {
    fn new(stream: TcpStream) -> Self {
        Self { stream, buffer: BytesMut::new(), decoder: FrameDecoder::new(tidelog::base::limits::FRAME_BYTES) }
    }

    pub async fn bytes(&mut self, bytes: &[u8]) {
        tokio::time::timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("writing hangs").unwrap();
    }

    pub async fn send<M: Message>(&mut self, correlation: u64, message: &M) {
        self.bytes(&frame(correlation, message, &[])).await;
    }

    /// The next frame, `None` at the end of the connection.
    pub async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.decoder.decode(&mut self.buffer).unwrap() {
                return Some(frame);
            }
            let read = self.stream.read_buf(&mut self.buffer);
            match tokio::time::timeout(PATIENCE, read).await.expect("no answer") {
                Ok(0) | Err(_) => return None,
                Ok(_) => {}
            }
        }
    }

    pub async fn hello(&mut self) -> HelloOk {
        self.call(0, &hello(1, 1)).await.unwrap()
    }

    pub async fn call<R: Request>(&mut self, correlation: u64, request: &R) -> Result<R::Response, ErrorBody> {
        self.send(correlation, request).await;
        let frame = self.next().await.expect("the connection ended instead of an answer");
        answer(&frame, correlation)
    }

    pub async fn create_topic(&mut self, name: &str) -> TopicOk {
        let settings = Vec::new();
        self.call(1, &CreateTopic { name: name.to_owned(), partitions: None, settings, if_not_exists: false })
            .await
            .unwrap()
    }

    pub async fn produce(&mut self, correlation: u64, topic: &str, batch: &[u8]) {
        let request = Produce { topic: topic.to_owned(), partition: 0, ack: Ack::Durable };
        self.bytes(&frame(correlation, &request, batch)).await;
    }

    /// As `produce` to topic `a`, of a connection that may be closed meanwhile.
    pub async fn produce_or_end(&mut self, correlation: u64, batch: &[u8]) {
        let request = Produce { topic: "a".to_owned(), partition: 0, ack: Ack::Durable };
        let _ = self.stream.write_all(&frame(correlation, &request, batch)).await;
    }

    pub async fn produced(&mut self, correlation: u64) -> ProduceOk {
        answer(&self.next().await.unwrap(), correlation).unwrap()
    }

    pub async fn subscribe(&mut self, topic: &str, offset: u64, records: u64, bytes: u64) -> SubscribeOk {
        self.call(
            7,
            &Subscribe {
                topic: topic.to_owned(),
                partition: 0,
                offset,
                credit_records: records,
                credit_bytes: bytes,
                skip_damaged: false,
                filter: None,
                isolation: Isolation::Committed,
            },
        )
        .await
        .unwrap()
    }

    /// The goodbye frame and the end of the connection behind it.
    pub async fn goodbye(&mut self) -> (ErrorKind, String) {
        let frame = self.next().await.expect("the connection ended without a goodbye");
        assert_eq!((frame.kind, frame.flags, frame.correlation), (0, flags::ERROR | flags::PUSH, 0));
        let body: ErrorBody = error_of(&frame);
        assert!(self.next().await.is_none(), "something came behind the goodbye");
        (ErrorKind::from_code(body.code).unwrap(), body.message)
    }

    /// Nothing but the end of the connection.
    pub async fn ended(&mut self) {
        assert!(self.next().await.is_none());
    }
}

pub fn hello(min_version: u16, max_version: u16) -> Hello {
    let (client_name, client_version) = ("test".to_owned(), "0".to_owned());
    Hello { min_version, max_version, client_name, client_version, credentials: None }
}

pub fn frame<M: Message>(correlation: u64, message: &M, payload: &[u8]) -> Vec<u8> {
    let mut bytes = encode_frame(M::KIND.code(), 0, correlation, message, payload.len()).unwrap();
    bytes.extend_from_slice(payload);
    bytes.to_vec()
}

pub fn error_of(frame: &Frame) -> ErrorBody {
    assert!(frame.has(flags::ERROR), "kind {} flags {}", frame.kind, frame.flags);
    tidelog::protocol::decode_body(frame.kind, &frame.body).unwrap()
}

pub fn answer<M: Message>(frame: &Frame, correlation: u64) -> Result<M, ErrorBody> {
    assert!(frame.has(flags::RESPONSE) && !frame.has(flags::PUSH), "kind {} flags {}", frame.kind, frame.flags);
    assert_eq!(frame.correlation, correlation);
    if frame.has(flags::ERROR) {
        return Err(error_of(frame));
    }
    Ok(tidelog::protocol::decode_body(frame.kind, &frame.body).unwrap())
}

pub fn batch(records: u32, value_bytes: usize) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    for number in 0..records {
        let mut value = vec![b'x'; value_bytes];
        let number = number.to_be_bytes();
        let shared = value.len().min(4);
        value[..shared].copy_from_slice(&number[..shared]);
        builder.push(1_700_000_000_000, None, Some(&value), &[]);
    }
    builder.build().freeze()
}

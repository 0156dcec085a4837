//! What the log says of requests: which one failed is to be found without a proxy between client and server.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use super::client::{Client, batch};
use super::producing::produce_request;
use super::topics::{create_topic, name};

/// A server with a log of its own, and its output. Killed when dropped.
struct Logging(Child, BufReader<ChildStdout>);

impl Logging {
    fn start(dir: &std::path::Path, level: &str) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tidelog"))
            .args(["serve", "--data-dir", dir.to_str().unwrap(), "--listen", "127.0.0.1:0", "--http-listen", "off"])
            .args(["--log-level", &format!("info,tidelog::server::kafka={level}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = BufReader::new(child.stdout.take().unwrap());
        Self(child, said)
    }

    fn address(&mut self) -> std::net::SocketAddr {
        loop {
            let mut line = String::new();
            assert!(self.1.read_line(&mut line).unwrap() > 0, "the server did not start");
            if line.contains("Kafka listener") {
                return line.split_whitespace().last().unwrap().parse().unwrap();
            }
        }
    }

    /// Ends the server: the lines of its log about requests.
    fn lines(&mut self) -> Vec<String> {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        let mut log = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut log).unwrap();
        log.lines().filter(|line| line.contains("request=")).map(str::to_owned).collect()
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn each_request_that_failed_is_a_line_at_debug_and_every_other_one_at_trace() {
    for level in ["info", "debug", "trace"] {
        let dir = tempfile::tempdir().unwrap();
        let mut server = Logging::start(&dir.path().join("data"), level);
        let mut client = Client::connect(server.address()).await;
        create_topic(&mut client, "t", 1).await;
        let topic = |of| MetadataRequestTopic::default().with_name(Some(name(of)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic("t"), topic("a b"), topic("c d")]));
        client.call(9, &request).await;
        client.call(9, &produce_request(-1, vec![("nowhere", 0, Some(batch(&["a"])))])).await;
        let mut lines = server.lines();
        let found = |lines: &mut Vec<String>, what: &[&str]| {
            let at = lines.iter().position(|line| what.iter().all(|what| line.contains(what)));
            lines.remove(at.unwrap_or_else(|| panic!("no line has {what:?}: {lines:#?}")))
        };
        if level != "info" {
            let failed = ["request failed", "request=\"kafka_metadata\"", "version=9", "client=\"test\""];
            let line = found(&mut lines, &failed);
            assert!(line.contains("InvalidTopicException (17) x2") && line.contains("us="), "{line}");
            found(&mut lines, &["request failed", "request=\"kafka_produce\"", "UnknownTopicOrPartition (3)"]);
        }
        if level == "trace" {
            found(&mut lines, &["request answered", "request=\"kafka_create_topics\""]);
        }
        assert!(lines.is_empty(), "{lines:#?}");
    }
}

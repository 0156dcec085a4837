//! What the log says of requests: which one failed is to be found without a proxy between client and server.

use std::io::Write;
use std::sync::{Arc, Mutex};

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use tracing_subscriber::EnvFilter;

use super::client::{Running, batch};
use super::producing::produce_request;
use super::topics::{create_topic, name};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines about requests since this was last asked.
    fn lines(&self) -> Vec<String> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        let text = String::from_utf8(bytes).unwrap();
        text.lines().filter(|line| line.contains("request=")).map(str::to_owned).collect()
    }
}

#[tokio::test]
async fn each_request_that_failed_is_a_line_at_debug_and_every_other_one_at_trace() {
    for level in ["info", "debug", "trace"] {
        let log = Log::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_env_filter(EnvFilter::new(format!("info,tidelog::server::kafka={level}")))
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        // All that is done for the client is done on this thread.
        let _guard = tracing::subscriber::set_default(subscriber);
        let running = Running::start().await;
        let mut client = running.client().await;
        create_topic(&mut client, "t", 1).await;
        let topic = |of| MetadataRequestTopic::default().with_name(Some(name(of)));
        let request = MetadataRequest::default().with_topics(Some(vec![topic("t"), topic("a b"), topic("c d")]));
        client.call(9, &request).await;
        client.call(9, &produce_request(-1, vec![("nowhere", 0, Some(batch(&["a"])))])).await;
        let mut lines = log.lines();
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
        running.stop().await;
    }
}

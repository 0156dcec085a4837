//! Topics that come to be by being named, thousands in one request.

use std::sync::Arc;
use std::time::Instant;

use kafka_protocol::messages::MetadataRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;

use super::super::errors;
use super::super::metadata::{kafka_name, metadata};
use super::super::session::Session;
use crate::base::limits;
use crate::broker::Client;
use crate::server::Server;
use crate::server::config::ServerConfig;

const VERSION: i16 = 12;
const NAMES: usize = 5_000;

async fn start() -> (Server, Arc<Session>, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let listen = "127.0.0.1:0".to_owned();
    let config = ServerConfig { data_dir: dir.path().join("data"), listen, ..ServerConfig::default() };
    let server = Server::start(config).await.unwrap();
    let address = server.kafka_addresses()[0];
    let session = Session::new(Arc::clone(&server.shared), address, address);
    (server, session, dir)
}

/// A request that names many topics, in the scope of one client. The codes of the answer.
async fn ask(session: &Arc<Session>, names: std::ops::Range<usize>) -> Vec<i16> {
    let named = |number| MetadataRequestTopic::default().with_name(Some(kafka_name(&format!("named-{number}"))));
    let request =
        MetadataRequest::default().with_topics(Some(names.map(named).collect())).with_allow_auto_topic_creation(true);
    let client = Client::of([10, 0, 0, 1].into());
    let answer = client.scope(metadata(Arc::clone(session), VERSION, request)).await;
    answer.topics.iter().map(|topic| topic.error_code).collect()
}

fn topics(server: &Server) -> usize {
    server.shared.broker.list_topics().len()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_names_thousands_of_topics_creates_a_burst_and_puts_the_others_off() {
    let (server, session, _dir) = start().await;
    let began = Instant::now();
    let codes = ask(&session, 0..NAMES).await;
    let most = limits::AUTO_TOPICS_BURST + limits::AUTO_TOPICS_A_SECOND * (began.elapsed().as_secs() + 1);
    let created = codes.iter().filter(|code| **code == errors::NONE).count();
    assert_eq!(codes.len(), NAMES);
    assert!(codes.iter().all(|code| matches!(*code, errors::NONE | errors::LEADER_NOT_AVAILABLE)));
    assert!((limits::AUTO_TOPICS_BURST..=most).contains(&(created as u64)), "{created} of at most {most}");
    assert_eq!(topics(&server), created);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_topic_is_created_for_a_peer_that_has_gone() {
    let (server, session, _dir) = start().await;
    assert_eq!(ask(&session, 0..1).await, [errors::NONE]);
    let asked = Arc::clone(&session);
    let asking = tokio::spawn(async move { ask(&asked, 0..90).await });
    while topics(&server) < 5 {
        tokio::task::yield_now().await;
    }
    session.close();
    let codes = asking.await.unwrap();
    let created = codes.iter().filter(|code| **code == errors::NONE).count();
    assert!((5..90).contains(&created), "{created}");
    assert_eq!(topics(&server), created);
    // What there is is told still.
    let codes = ask(&session, 0..90).await;
    assert_eq!(codes.iter().filter(|code| **code == errors::NONE).count(), created);
    assert_eq!(topics(&server), created);
    server.stop().await;
}

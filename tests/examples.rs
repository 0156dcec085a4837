//! The examples of requests run, and say what they promise.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../examples/call_center.rs"]
mod call_center;
#[path = "../examples/callback_chain.rs"]
mod callback_chain;

use tidelog::server::Server;
use tidelog::server::config::ServerConfig;

async fn server() -> (tempfile::TempDir, Server, String) {
    let dir = tempfile::tempdir().unwrap();
    let config =
        ServerConfig { data_dir: dir.path().join("data"), listen: "127.0.0.1:0".to_owned(), ..Default::default() };
    let server = Server::start(config).await.unwrap();
    let address = server.addresses()[0].to_string();
    (dir, server, address)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_call_center_gets_numbers_and_meets_the_unhappy_cases() {
    let (_dir, server, address) = server().await;
    let mut lines = Vec::new();
    call_center::story(&address, |line| lines.push(line)).await.unwrap();
    let told = lines.join("\n");
    for says in [
        "acc-00000: the CRM is not there",
        "acc-00001: call +00 555 2179",
        "acc-00002: the CRM says no: acc-00002 has left us no number (no_phone)",
        "acc-99999: the CRM says no: there is no account acc-99999 (unknown_account)",
        "acc-00007: the CRM is there, but did not answer in time",
    ] {
        assert!(told.contains(says), "{told}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_calls_back_once_for_each_request() {
    let (_dir, server, address) = server().await;
    let mut lines = Vec::new();
    callback_chain::story(&address, |line| lines.push(line)).await.unwrap();
    let told = lines.join("\n");
    for says in [
        "ask-inv-000001: inv-000001 adds up: ",
        "ask-inv-000002: inv-000002 adds up: ",
        "ask-inv-999999: failed at step 0 (invoice.load): there is no invoice inv-999999",
        "ask-archive: timed_out at step 0 (invoice.archive): ",
    ] {
        assert!(told.contains(says), "{told}");
    }
    server.stop().await;
}

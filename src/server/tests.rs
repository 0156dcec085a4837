mod hostile;

use super::*;

fn config(dir: &tempfile::TempDir) -> ServerConfig {
    let data_dir = dir.path().join("data");
    ServerConfig { data_dir, listen: "127.0.0.1:0".to_owned(), ..ServerConfig::default() }
}

#[tokio::test]
async fn a_server_stops_and_starts_again_on_the_same_directory() {
    let dir = tempfile::tempdir().unwrap();
    for _ in 0..3 {
        let server = Server::start(config(&dir)).await.unwrap();
        assert_ne!(server.addresses()[0].port(), 0);
        server.stop().await;
    }
}

#[tokio::test]
async fn an_address_in_use_is_named_before_the_data_directory_is_touched() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = Server::start(ServerConfig { listen: address.clone(), ..config(&dir) }).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.to_string().contains(&address), "{error}");
    assert!(!dir.path().join("data").exists());
}

#[tokio::test]
async fn a_contradictory_configuration_does_not_start() {
    let dir = tempfile::tempdir().unwrap();
    let error = Server::start(ServerConfig { listen: "0.0.0.0:0".to_owned(), ..config(&dir) }).await.unwrap_err();
    assert!(error.to_string().contains("--allow-unauthenticated"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_is_told_of_a_doubted_clock_and_confirms_it() {
    const DAY_MS: i64 = 86_400_000;
    let dir = tempfile::tempdir().unwrap();
    let clock = Arc::new(crate::base::ManualClock::at(1_800_000_000_000));
    let server = Server::start_on(config(&dir), Arc::new(RealDisk), clock.clone()).await.unwrap();
    server.stop().await;
    clock.jump(8 * DAY_MS);
    let server = Server::start_on(config(&dir), Arc::new(RealDisk), clock.clone()).await.unwrap();
    let client = crate::client::Client::connect(server.addresses()[0].to_string()).await.unwrap();
    let look = client.admin().describe_clock().await.unwrap();
    assert_eq!((look.wall_ms, look.wall_ms - look.certain_ms), (look.now_ms, 8 * DAY_MS));
    assert!(look.doubt.is_some_and(|doubt| doubt.at_start && doubt.ahead_ms == 8 * DAY_MS));
    let doubted =
        |text: &str| text.contains("tidelog_clock_doubted 1") && text.contains("tidelog_clock_ahead_seconds 691200");
    assert!(doubted(&client.admin().metrics().await.unwrap()));
    assert!(client.admin().confirm_clock().await.unwrap().is_some());
    assert_eq!(client.admin().confirm_clock().await.unwrap(), None);
    let look = client.admin().describe_clock().await.unwrap();
    assert_eq!((look.certain_ms, look.doubt), (look.wall_ms, None));
    assert!(client.admin().metrics().await.unwrap().contains("tidelog_clock_doubted 0"));
    drop(client);
    server.stop().await;
}

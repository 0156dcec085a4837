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

use std::path::PathBuf;

use super::*;
use crate::disk::RealDisk;

fn load(file: Option<&str>, environment: &[(&str, &str)], flags: &[(&'static str, &str)]) -> Result<Loaded, String> {
    let dir = tempfile::tempdir().unwrap();
    let mut inputs = Inputs::default();
    if let Some(content) = file {
        let path = dir.path().join("tidelog.toml");
        std::io::Write::write_all(&mut new_file(&path), content.as_bytes()).unwrap();
        inputs.file = Some(path);
    }
    inputs.environment = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    inputs.flags = flags.iter().map(|(k, v)| (*k, (*v).to_owned())).collect();
    Loaded::from(&inputs, &RealDisk).map_err(|error| error.to_string())
}

fn new_file(path: &std::path::Path) -> std::fs::File {
    std::fs::OpenOptions::new().write(true).create(true).truncate(true).open(path).unwrap()
}

#[test]
fn flags_go_before_environment_before_file_before_default() {
    let file = "listen = \"127.0.0.1:1\"\nmax_connections = 11\nidle_timeout = \"1m\"\n";
    let loaded = load(
        Some(file),
        &[("TIDELOG_LISTEN", "127.0.0.1:2"), ("TIDELOG_MAX_CONNECTIONS", "12"), ("TIDELOG_SERVER", "ignored")],
        &[("listen", "127.0.0.1:3")],
    )
    .unwrap();
    assert_eq!(loaded.config.listen, "127.0.0.1:3");
    assert_eq!(loaded.origin("listen"), Origin::Flag);
    assert_eq!(loaded.config.max_connections, 12);
    assert_eq!(loaded.origin("max_connections").to_string(), "environment TIDELOG_MAX_CONNECTIONS");
    assert_eq!(loaded.config.idle_timeout, Millis(60_000));
    assert!(matches!(loaded.origin("idle_timeout"), Origin::File(_)));
    assert_eq!(loaded.config.default_partitions, 1);
    assert_eq!(loaded.origin("default_partitions"), Origin::Default);
}

#[test]
fn unknown_keys_and_wrong_types_are_refused_by_name() {
    let error = load(Some("listne = \"x\"\n"), &[], &[]).unwrap_err();
    assert!(
        error.contains("unknown key 'listne'") && error.contains("listen") && error.contains("tidelog.toml"),
        "{error}"
    );
    let error = load(Some("max_connections = [1]\n"), &[], &[]).unwrap_err();
    assert!(error.contains("max_connections is array"), "{error}");
    let error = load(Some("max_connections = \n"), &[], &[]).unwrap_err();
    assert!(error.contains("tidelog.toml") && !error.contains('\n'), "{error}");
    let error = load(Some("[topic_defaults]\nretension = \"7d\"\n"), &[], &[]).unwrap_err();
    assert!(error.contains("retension"), "{error}");
}

#[test]
fn a_value_out_of_its_bounds_is_refused_with_the_bound() {
    let error = load(None, &[("TIDELOG_MAX_CONNECTIONS", "0")], &[]).unwrap_err();
    assert!(error.contains("TIDELOG_MAX_CONNECTIONS") && error.contains("the least is 1"), "{error}");
    let error = load(None, &[], &[("idle_timeout", "9ms")]).unwrap_err();
    assert!(error.contains("the least is 10ms"), "{error}");
    let error = load(None, &[], &[("idle_timeout", "60")]).unwrap_err();
    assert!(error.contains("duration"), "{error}");
    let error = load(None, &[], &[("default_partitions", "2000")]).unwrap_err();
    assert!(error.contains("the most is 1024"), "{error}");
}

#[test]
fn what_print_config_shows_reads_back_as_the_same_values() {
    let first = load(
        Some("[topic_defaults]\nretention_time = \"7d\"\n"),
        &[("TIDELOG_LOG", "info,tidelog=debug")],
        &[("data_dir", "/tmp/a \"b\""), ("auto_create_topics", "false")],
    )
    .unwrap();
    let printed = first.print();
    assert!(printed.contains("# from flag") && printed.contains("# from environment TIDELOG_LOG"), "{printed}");
    let again = load(Some(&printed), &[], &[]).unwrap_or_else(|error| panic!("{error}\n{printed}"));
    for field in FIELDS {
        assert_eq!(field.show(&again.config), field.show(&first.config), "{}", field.name);
    }
    assert_eq!(again.config.data_dir, PathBuf::from("/tmp/a \"b\""));
    assert_eq!(again.config.topic_defaults.get("retention_time").unwrap(), "7d");
}

#[test]
fn the_defaults_are_sound_and_within_their_own_bounds() {
    let config = ServerConfig::default();
    config.check().unwrap();
    let mut copy = config.clone();
    for field in FIELDS {
        field.set(&mut copy, &field.show(&config)).unwrap();
    }
    assert_eq!(config.max_batch_bytes(), limits::MAX_BATCH_BYTES);
}

#[test]
fn an_open_address_without_authentication_is_refused_unless_said_so() {
    for open in ["0.0.0.0:7171", "[::]:7171", "192.0.2.1:7171", "[::ffff:192.0.2.1]:7171"] {
        let mut config = ServerConfig { listen: open.to_owned(), ..ServerConfig::default() };
        let error = config.check().unwrap_err().to_string();
        assert!(error.contains("--allow-unauthenticated") && error.contains(open), "{error}");
        config.allow_unauthenticated = true;
        config.check().unwrap();
    }
    for closed in ["127.0.0.1:0", "127.8.8.8:1", "[::1]:7171", "[::ffff:127.0.0.1]:7171"] {
        ServerConfig { listen: closed.to_owned(), ..ServerConfig::default() }.check().unwrap();
    }
}

#[test]
fn contradictions_are_explained() {
    let error = |change: fn(&mut ServerConfig)| {
        let mut config = ServerConfig::default();
        change(&mut config);
        config.check().unwrap_err().to_string()
    };
    assert!(error(|c| c.max_connection_bytes = Bytes(1 << 40)).contains("max_total_bytes"));
    assert!(
        error(|c| (c.max_total_bytes, c.max_connection_bytes) = (Bytes(8 << 20), Bytes(1 << 20)))
            .contains("topic_defaults")
    );
    assert!(error(|c| c.handshake_timeout = Millis(86_400_000)).contains("idle_timeout"));
    assert!(error(|c| c.max_connection_bytes = Bytes(1 << 20)).contains("http_max_body_bytes"));
    assert!(error(|c| c.listen = "nonsense".to_owned()).contains("nonsense"));
}

#[test]
fn no_session_of_a_kafka_group_may_be_shorter_than_the_shortest_and_longer_than_the_longest() {
    let loaded = load(None, &[], &[("kafka_min_session", "10s"), ("kafka_max_session", "9s")]).unwrap();
    let error = loaded.config.check().unwrap_err().to_string();
    assert!(error.contains("kafka_min_session (10s)") && error.contains("kafka_max_session (9s)"), "{error}");
}

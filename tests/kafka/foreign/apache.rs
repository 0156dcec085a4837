//! Apache Kafka itself: its broker as the judge of every answer, its Java client in two versions, its command-line tools.
//! See `tests/kafka/judge/`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::{Program, root, wanted};

/// Runs a script of `tests/kafka/judge` against a fresh server; its last line is "ok".
#[track_caller]
fn against_fresh(what: &str, script: &str, before: &[&str], patience: Duration) {
    if !wanted(what) {
        return;
    }
    // One Java machine after the other: each takes all the processors that it finds.
    static TURN: Mutex<()> = Mutex::new(());
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let dir = tempfile::tempdir().unwrap();
    let mut server = Program::start(&dir.path().join("data"), "127.0.0.1:0");
    let printed = dir.path().join("printed");
    let output = std::fs::File::create(&printed).unwrap();
    let mut command = Command::new(root().join("tests/kafka/judge").join(script));
    command.args(before).arg(&server.1).stdin(Stdio::null()).stderr(output.try_clone().unwrap()).stdout(output);
    let mut child = command.spawn().unwrap();
    let until = Instant::now() + patience;
    let status = loop {
        match child.try_wait().unwrap() {
            Some(status) => break status,
            None if Instant::now() >= until => {
                // TERM, so that the script can take Kafka along.
                let _ = Command::new("kill").arg(child.id().to_string()).status();
                let _ = child.wait();
                panic!("{what} does not end:\n{}", text(&printed));
            }
            None => std::thread::sleep(Duration::from_millis(100)),
        }
    };
    server.kill();
    let text = text(&printed);
    assert!(status.success() && text.trim_end().ends_with("ok"), "{what}: {status}\n{text}");
    println!("{text}");
}

fn text(path: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
}

/// Every answer, of every version that both give, field by field; what may differ is in `judge/allowed.json`.
#[test]
fn answers_are_those_of_apache_kafka() {
    against_fresh("Apache Kafka as the judge", "judge.sh", &[], Duration::from_secs(900));
}

#[test]
fn the_java_client_of_kafka_4() {
    against_fresh("the Java client of Kafka 4", "clients.sh", &["kafka"], Duration::from_secs(300));
}

#[test]
fn the_java_client_of_kafka_3() {
    against_fresh("the Java client of Kafka 3.9", "clients.sh", &["clients39"], Duration::from_secs(300));
}

#[test]
fn the_commands_that_come_with_kafka() {
    against_fresh("Kafka's command-line tools", "tools.sh", &[], Duration::from_secs(300));
}

/// docs/kafka-differences.md says what the judge allows. `TIDELOG_WRITE_DOCS=1` writes it.
#[test]
fn the_list_of_differences_is_what_the_judge_allows() {
    let allowed: serde_json::Value =
        serde_json::from_slice(&std::fs::read(root().join("tests/kafka/judge/allowed.json")).unwrap()).unwrap();
    let path = root().join("docs/kafka-differences.md");
    let made = page(allowed.as_array().unwrap());
    if std::env::var_os("TIDELOG_WRITE_DOCS").is_some() {
        std::fs::write(&path, &made).unwrap();
    }
    let page = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        page == made,
        "docs/kafka-differences.md is not what allowed.json says: run this test with TIDELOG_WRITE_DOCS=1"
    );
}

const HEAD: &str = "# Differences from Apache Kafka

`tests/kafka/judge/judge.sh` sends the same requests to Apache Kafka 4.4.0 (one node, as it is out of the box) and to Tidelog,
in every version that both answer, and compares the answers field by field. What it finds different is here, with the reason;
a difference that is not here fails the test. Ids, addresses, times, sizes and the wording of messages are not compared. This
page is made from `tests/kafka/judge/allowed.json`.
";

fn page(allowed: &[serde_json::Value]) -> String {
    let mut page = HEAD.to_owned();
    let parts = [
        (false, "By design", "These are meant."),
        (true, "Not yet as Kafka", "These are faults, or parts that are missing so far."),
    ];
    for (pending, title, before) in parts {
        let mut rows: Vec<_> = allowed
            .iter()
            .filter(|one| one["pending"].as_bool().unwrap_or(false) == pending)
            // In brackets is what only follows from another one.
            .filter(|one| !one["what"].as_str().unwrap_or_default().starts_with('('))
            .map(|one| {
                let field = |name: &str| one[name].as_str().unwrap_or_else(|| panic!("{name} is missing: {one}"));
                (field("api"), field("what"), field("why"))
            })
            .collect();
        if rows.is_empty() {
            continue;
        }
        rows.sort_by_key(|(api, ..)| (*api != "*", *api));
        page.push_str(&format!("\n## {title}\n\n{before}\n\n| request | difference | why |\n|---|---|---|\n"));
        for (api, what, why) in rows {
            let api = if api == "*" { "all" } else { api };
            page.push_str(&format!("| {api} | {what} | {why} |\n"));
        }
    }
    page
}

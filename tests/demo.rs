//! `tidelog demo` is the first thing a user runs.

mod common;

use std::process::Command;
use std::time::{Duration, Instant};

use common::{spawn, tidelog};
use serde_json::Value;

#[test]
fn the_demo_holds_and_leaves_nothing() {
    let demo = spawn(&["demo", "--json"]);
    let id = demo.id();
    let run = demo.finish(Duration::from_secs(120)).ok();
    let text = String::from_utf8(run.stdout).unwrap();
    let steps: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(steps.iter().all(|step| step["ok"] == true));
    for step in ["kill", "restart", "replay", "subscriber", "replay_time", "verify", "done"] {
        assert!(steps.iter().any(|found| found["step"] == step), "no step {step} in {text}");
    }
    assert_eq!(leftovers(id), 0);
}

#[test]
fn the_demo_is_written_for_people_and_keeps_its_data_when_asked() {
    let run = tidelog(&["demo", "--keep"]).ok();
    let text = String::from_utf8(run.stdout).unwrap();
    assert!(text.matches('✓').count() >= 8, "{text}");
    let kept = text.lines().last().unwrap();
    let folder = kept.split_whitespace().find(|word| word.contains("tidelog-demo-")).unwrap().trim_end_matches(':');
    assert!(tidelog(&["verify", &format!("{folder}/data")]).ok().status == Some(0));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_interrupted_demo_takes_its_server_and_folder_with_it() {
    let demo = spawn(&["demo"]);
    let id = demo.id();
    let deadline = Instant::now() + Duration::from_secs(20);
    while leftovers(id) == 0 {
        assert!(Instant::now() < deadline, "the demo made no folder");
        std::thread::yield_now();
    }
    assert!(Command::new("kill").args(["-INT", &id.to_string()]).status().unwrap().success());
    let run = demo.finish(Duration::from_secs(20)).fails(1);
    assert_eq!(run.reason(), "tidelog: interrupted");
    assert_eq!(leftovers(id), 0);
}

/// Folders of the demo with this process id.
fn leftovers(id: u32) -> usize {
    let prefix = format!("tidelog-demo-{id}-");
    let entries = std::fs::read_dir(std::env::temp_dir()).unwrap().flatten();
    entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix)).count()
}

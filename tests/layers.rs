//! The tree is the map (ARCHITECTURE.md): modules import from lower floors only, and things that have one home stay there.
#![allow(clippy::disallowed_methods, reason = "this test reads the project's own source")]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// Module and floor; modules of one floor do not see each other.
const FLOORS: [(&str, u32); 12] = [
    ("base", 0),
    ("disk", 1),
    ("record", 1),
    ("protocol", 1),
    ("log", 2),
    ("expr", 2),
    ("catalog", 3),
    ("route", 3),
    ("broker", 4),
    ("server", 5),
    ("client", 5),
    ("cli", 6),
];

/// Code lines a source file may have; tests are in files of their own.
const LONGEST: usize = 600;

fn sources(dir: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push(path);
        }
    }
}

fn all() -> Vec<(PathBuf, String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut paths = Vec::new();
    sources(&root, &mut paths);
    paths.sort();
    let read = |path: PathBuf| {
        let relative = path.strip_prefix(&root).unwrap().to_owned();
        let module = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        (relative, module, text)
    };
    paths.into_iter().map(read).collect()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "tests") || path.file_name().is_some_and(|name| name == "tests.rs")
}

/// The code of a line, without a comment at its end.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

#[test]
fn modules_import_from_lower_floors_only() {
    let floor = |name: &str| FLOORS.iter().find(|(module, _)| *module == name).map(|(_, floor)| *floor);
    let mut wrong = Vec::new();
    for (path, module, text) in all() {
        let Some(own) = floor(&module) else { continue };
        for (number, line) in text.lines().enumerate() {
            for (name, of) in FLOORS {
                let seen = [format!("crate::{name}::"), format!("crate::{name};"), format!("tidelog::{name}::")];
                let imports = seen.iter().any(|pattern| code(line).contains(pattern.as_str()));
                let allowed = name == module || of < own || is_test(&path);
                if imports && !allowed {
                    wrong.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "imports that point up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn things_with_one_home_stay_there() {
    let homes: [(&str, &[&str]); 9] = [
        ("std::fs", &["disk/real.rs"]),
        ("SystemTime", &["base/clock.rs"]),
        // A server goes by what is believed of the wall clock.
        (".wall_ms()", &["base/clock.rs", "base/clock", "base/health.rs", "client", "cli", "server/mod.rs"]),
        ("sled::", &["catalog/view.rs", "catalog/view"]),
        ("bincode::", &["protocol/codec.rs", "catalog/event.rs"]),
        ("tokio::", &["broker", "server", "client", "cli", "main.rs"]),
        // A panic in a thread or task of the engine must not go by unseen: base/guard.rs, broker/task.rs.
        ("tokio::spawn(", &["broker/task.rs", "server", "client", "cli"]),
        ("runtime.spawn(", &["broker/task.rs", "server", "client", "cli"]),
        ("thread::Builder", &["base/guard.rs", "catalog/view.rs", "server", "client", "cli"]),
    ];
    let mut wrong = Vec::new();
    for (path, _, text) in all() {
        for (thing, places) in homes {
            let home = places.iter().any(|place| path.starts_with(place)) || is_test(&path);
            for (number, line) in text.lines().enumerate() {
                if code(line).contains(thing) && !home {
                    wrong.push(format!("{}:{}: {thing} belongs in {places:?}", path.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_one_noun_long() {
    let long: Vec<_> = all()
        .into_iter()
        .filter(|(path, _, _)| !is_test(path))
        .filter(|(_, _, text)| text.lines().count() > LONGEST)
        .map(|(path, _, text)| format!("{} has {} lines", path.display(), text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}

#[test]
fn nothing_is_left_for_later_in_the_code() {
    let marks = ["todo!(", "unimplemented!(", "FIXME", "XXX", "dbg!("];
    let mut found = Vec::new();
    for (path, _, text) in all() {
        for (number, line) in text.lines().enumerate() {
            if marks.iter().any(|mark| line.contains(mark)) {
                found.push(format!("{}:{}: {}", path.display(), number + 1, line.trim()));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

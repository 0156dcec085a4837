use std::path::PathBuf;

use super::*;
use crate::disk::{self, OpenMode, RealDisk};

fn real() -> Arc<dyn Disk> {
    Arc::new(RealDisk)
}

fn copy(from: &Path, to: &Path) {
    RealDisk.create_dir_all(to).unwrap();
    for entry in RealDisk.list(from).unwrap() {
        let (from, to) = (from.join(&entry.name), to.join(&entry.name));
        if entry.is_dir {
            copy(&from, &to);
        } else {
            disk::replace_file(&RealDisk, &to, &disk::read_file(&RealDisk, &from).unwrap()).unwrap();
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in RealDisk.list(folder).unwrap() {
        let path = folder.join(&entry.name);
        if entry.is_dir { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// A data directory after the script, closed.
fn filled(path: &Path) {
    let (_dir, mut catalog, _) = open(&real(), path).unwrap();
    script().into_iter().for_each(|event| catalog.commit(event, NOW).unwrap());
    catalog.close(NOW).unwrap();
}

/// Opens it twice: the state is that of the script, and the second time the view is in order.
fn assert_same(path: &Path, context: &str) -> CatalogStartup {
    let expected = states(&script()).pop().unwrap();
    let (dir, catalog, startup) = open(&real(), path).unwrap();
    assert_eq!(catalog.state(), &expected, "{context}");
    drop((catalog, dir));
    let (_dir, catalog, again) = open(&real(), path).unwrap();
    assert_eq!(catalog.state(), &expected, "{context}, second time");
    assert_eq!(again, CatalogStartup::default(), "{context}, second time");
    startup
}

fn assert_rebuilt(path: &Path, context: &str, says: &str) {
    let startup = assert_same(path, context);
    assert!(startup.view_rebuilt, "{context}: {startup:?}");
    assert!(startup.notes.iter().any(|note| note.contains(says)), "{context}: {startup:?}");
}

#[test]
fn a_view_that_is_in_order_is_used_and_nothing_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let (_, _, startup) = open(&real(), folder.path()).unwrap();
    assert_eq!(startup, CatalogStartup::default());
    filled(folder.path());
    assert_eq!(assert_same(folder.path(), "untouched"), CatalogStartup::default());
}

#[test]
fn a_view_that_is_missing_is_built_from_the_journal() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    RealDisk.remove_dir_all(&folder.path().join("view")).unwrap();
    assert_rebuilt(folder.path(), "removed", "read 2 topics from the journal instead: there was none");
}

#[test]
fn a_view_with_any_file_cut_emptied_or_filled_with_garbage_is_built_anew_or_proves_right() {
    let folder = tempfile::tempdir().unwrap();
    let master = folder.path().join("master");
    filled(&master);
    let count = files(&master.join("view")).len();
    assert!(count >= 2);
    let mut rebuilt = 0;
    for at in 0..count {
        for (damage, seed) in [("garbage", 1), ("garbage", 2), ("zeros", 0), ("empty", 0), ("half", 0), ("bit", 3)] {
            let path = folder.path().join(format!("{at}-{damage}-{seed}"));
            copy(&master, &path);
            let file = files(&path.join("view")).remove(at);
            let mut content = disk::read_file(&RealDisk, &file).unwrap();
            let mut rng = fastrand::Rng::with_seed(seed);
            match damage {
                "garbage" => rng.fill(&mut content),
                "zeros" => content.fill(0),
                "empty" => content.clear(),
                "half" => content.truncate(content.len() / 2),
                _ => {
                    for _ in 0..20 {
                        let at = rng.usize(..content.len().max(1));
                        if let Some(byte) = content.get_mut(at) {
                            *byte ^= 1 << rng.u8(..8);
                        }
                    }
                }
            }
            disk::replace_file(&RealDisk, &file, &content).unwrap();
            let startup = assert_same(&path, &format!("{} with {damage}", file.display()));
            rebuilt += u32::from(startup.view_rebuilt);
            RealDisk.remove_dir_all(&path).unwrap();
        }
    }
    assert!(rebuilt >= 6, "{rebuilt}");
}

#[test]
fn a_view_that_is_a_file_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let db = folder.path().join("view/db");
    RealDisk.remove_file(&db).unwrap();
    RealDisk.create_dir_all(&db).unwrap();
    assert_rebuilt(folder.path(), "a folder in place of a file", "journal instead");
}

#[test]
fn a_view_of_another_server_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, other) = (folder.path().join("mine"), folder.path().join("other"));
    filled(&mine);
    filled(&other);
    RealDisk.remove_dir_all(&mine.join("view")).unwrap();
    copy(&other.join("view"), &mine.join("view"));
    assert_rebuilt(&mine, "another server's", "it belongs to another server");
}

#[test]
fn a_view_ahead_of_the_journal_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (now, later) = (folder.path().join("now"), folder.path().join("later"));
    filled(&now);
    copy(&now, &later);
    let (dir, mut catalog, _) = open(&real(), &later).unwrap();
    catalog.commit(created("later", 99), NOW).unwrap();
    catalog.close(NOW).unwrap();
    drop((catalog, dir));
    RealDisk.remove_dir_all(&now.join("view")).unwrap();
    copy(&later.join("view"), &now.join("view"));
    assert_rebuilt(&now, "ahead", "the journal to");
}

#[test]
fn a_view_of_another_run_of_the_same_length_is_built_anew() {
    let folder = tempfile::tempdir().unwrap();
    let (mine, other) = (folder.path().join("mine"), folder.path().join("other"));
    drop(open(&real(), &mine).unwrap());
    copy(&mine, &other);
    filled(&mine);
    let (dir, mut catalog, _) = open(&real(), &other).unwrap();
    for (id, event) in (50..).zip(script()) {
        // The same number of records.
        let event = if matches!(event, Event::TopicDeleted { .. }) {
            deleted(&format!("t{}", id - 1), id - 1)
        } else {
            created(&format!("t{id}"), id)
        };
        catalog.commit(event, NOW).unwrap();
    }
    catalog.close(NOW).unwrap();
    drop((catalog, dir));
    RealDisk.remove_dir_all(&mine.join("view")).unwrap();
    copy(&other.join("view"), &mine.join("view"));
    assert_rebuilt(&mine, "another run's", "it comes from another run");
}

#[test]
fn a_view_that_lags_behind_catches_up() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (folder.path().join("data"), folder.path().join("saved"));
    let (dir, mut catalog, _) = open(&real(), &path).unwrap();
    catalog.commit(script().remove(0), NOW).unwrap();
    catalog.close(NOW).unwrap();
    drop((catalog, dir));
    copy(&path.join("view"), &saved);
    let (dir, mut catalog, _) = open(&real(), &path).unwrap();
    script().into_iter().skip(1).for_each(|event| catalog.commit(event, NOW).unwrap());
    catalog.close(NOW).unwrap();
    drop((catalog, dir));
    RealDisk.remove_dir_all(&path.join("view")).unwrap();
    copy(&saved, &path.join("view"));
    assert_eq!(assert_same(&path, "lagging"), CatalogStartup::default());
}

#[test]
fn a_directory_copied_while_the_server_runs_opens() {
    let folder = tempfile::tempdir().unwrap();
    let (path, backup) = (folder.path().join("data"), folder.path().join("backup"));
    let (_dir, mut catalog, _) = open(&real(), &path).unwrap();
    script().into_iter().for_each(|event| catalog.commit(event, NOW).unwrap());
    copy(&path, &backup);
    assert_same(&backup, "copied");
}

#[test]
fn a_view_that_cannot_be_made_costs_nothing_but_a_note() {
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path());
    let view = folder.path().join("view");
    RealDisk.remove_dir_all(&view).unwrap();
    // A file where the folder should be: remove_dir_all does not take it away.
    RealDisk.open(&view, OpenMode::CreateNew).unwrap();
    for _ in 0..2 {
        let (_dir, catalog, startup) = open(&real(), folder.path()).unwrap();
        assert_eq!(catalog.state(), states(&script()).last().unwrap());
        assert!(!startup.view_rebuilt && startup.notes.iter().any(|note| note.contains("running without it")));
    }
}

/// One seed, exact replay: `TIDELOG_SEED` runs that one only.
#[test]
fn random_changes_with_reopening_as_an_ordinary_operation_agree_with_a_model() {
    let seeds = match std::env::var("TIDELOG_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (1..=6).collect::<Vec<u64>>(),
    };
    for seed in seeds {
        let folder = tempfile::tempdir().unwrap();
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut model = State::default();
        let mut opened = open(&real(), folder.path()).ok();
        for step in 0..150 {
            let context = format!("seed {seed}, step {step}");
            let (_, catalog, _) = opened.as_mut().unwrap();
            if rng.u8(..12) == 0 {
                if rng.bool() {
                    catalog.close(NOW).unwrap();
                }
                drop(opened.take());
                match rng.u8(..4) {
                    0 => RealDisk.remove_dir_all(&folder.path().join("view")).unwrap(),
                    1 => {
                        let mut db = vec![0; 100_000];
                        rng.fill(&mut db);
                        disk::replace_file(&RealDisk, &folder.path().join("view/db"), &db).unwrap();
                    }
                    _ => {}
                }
                opened = Some(open(&real(), folder.path()).unwrap());
                assert_eq!(opened.as_ref().unwrap().1.state(), &model, "{context}");
                continue;
            }
            let event = random_event(&mut rng, &model);
            let expected = model.check(&event).map_err(|error| error.to_string());
            if expected.is_ok() {
                model.apply(event.clone());
            }
            let done = catalog.commit(event, NOW).map_err(|error| error.to_string());
            assert_eq!(done, expected, "{context}");
            assert_eq!(catalog.state(), &model, "{context}");
        }
    }
}

fn random_event(rng: &mut fastrand::Rng, state: &State) -> Event {
    let topic = format!("t{}", rng.u8(..8));
    let held = state.topic(&name(&topic)).cloned();
    let id = held.as_ref().map_or(TopicId(1), |held| held.id);
    match rng.u8(..6) {
        0 | 1 => Event::TopicCreated(entry(&topic, rng.u128(..), rng.u32(1..4))),
        2 => {
            let mut entry = held.unwrap_or_else(|| entry(&topic, 1, 1));
            entry.partitions += rng.u32(..2);
            entry.settings.insert("retention_time".into(), format!("{}s", rng.u8(1..)));
            Event::TopicAltered(entry)
        }
        3 => Event::TopicDeleted { name: name(&topic), id, partitions: 1 },
        4 => Event::TopicPurged { id: state.tombstones().next().map_or(TopicId(1), |gone| gone.id) },
        _ => Event::ProducerIdsReserved { up_to: state.producer_ids() + rng.i64(..2000) },
    }
}

#[test]
fn a_view_of_many_topics_is_built_and_catches_up_in_several_batches() {
    let folder = tempfile::tempdir().unwrap();
    let (path, saved) = (folder.path().join("data"), folder.path().join("saved"));
    let (dir, mut catalog, _) = open(&real(), &path).unwrap();
    catalog.commit(created("first", 9999), NOW).unwrap();
    catalog.close(NOW).unwrap();
    drop((catalog, dir));
    copy(&path.join("view"), &saved);
    let (dir, mut catalog, _) = open(&real(), &path).unwrap();
    for id in 0..1200 {
        catalog.commit(created(&format!("t{id}"), id), NOW).unwrap();
    }
    let expected = catalog.state().clone();
    drop((catalog, dir));
    for lagging in [true, false, false] {
        if lagging {
            RealDisk.remove_dir_all(&path.join("view")).unwrap();
            copy(&saved, &path.join("view"));
        }
        let (_dir, catalog, startup) = open(&real(), &path).unwrap();
        assert_eq!((catalog.state(), startup), (&expected, CatalogStartup::default()));
    }
    RealDisk.remove_dir_all(&path.join("view")).unwrap();
    for rebuilt in [true, false] {
        let (_dir, catalog, startup) = open(&real(), &path).unwrap();
        assert_eq!((catalog.state(), startup.view_rebuilt), (&expected, rebuilt));
    }
}

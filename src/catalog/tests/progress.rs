use super::*;

/// What the catalog says of a group: its positions and chunk numbers, by topic.
fn seen(catalog: &Catalog, of: &str) -> Vec<(u128, Option<u64>, Vec<u64>)> {
    let name = GroupName::new(of).unwrap();
    let progress = catalog.all_progress(&name).map(|((topic, _), progress)| {
        let offset = progress.position.as_ref().map(|position| position.offset);
        (topic.0, offset, progress.chunks.keys().copied().collect())
    });
    progress.collect()
}

#[test]
fn a_group_and_its_progress_are_there_after_a_restart_and_go_together() {
    let sim = SimDisk::new(Default::default());
    let disk = disk_of(&sim);
    let path = Path::new("/data");
    let (_, mut catalog, _) = open(&disk, path).unwrap();
    catalog.commit_all(vec![created("a", 1), created("b", 2)], NOW).unwrap();
    let declared = ["g", "g/x"].map(|name| Event::GroupDeclared(group(name)));
    catalog.commit_all(declared.to_vec(), NOW).unwrap();
    let progress = vec![position("g", 1, 5), chunk("g", 1, 0), position("g", 2, 9), position("g/x", 1, 6)];
    catalog.commit_all(progress, NOW).unwrap();
    // Progress that is nobody's is left out, and does not keep the rest from being made.
    catalog.commit_all(vec![position("nobody", 1, 1), position("g", 3, 1), chunk("g", 1, 9)], NOW).unwrap();
    catalog.commit_all(vec![member("g", "m1"), member("nobody", "m"), member("g/x", "m2")], NOW).unwrap();
    drop(catalog);

    let (_, mut catalog, _) = open(&disk, path).unwrap();
    assert_eq!(catalog.groups().map(|group| group.name.as_str()).collect::<Vec<_>>(), ["g", "g/x"]);
    assert_eq!(catalog.group(&GroupName::new("g").unwrap()), Some(&group("g")));
    assert_eq!(seen(&catalog, "g"), [(1, Some(5), vec![0, 9]), (2, Some(9), vec![])]);
    assert_eq!(seen(&catalog, "g/x"), [(1, Some(6), vec![])]);
    let members = |catalog: &Catalog, of| catalog.members(&GroupName::new(of).unwrap()).count();
    assert_eq!((members(&catalog, "g"), members(&catalog, "g/x"), members(&catalog, "nobody")), (1, 1, 0));
    // A deleted topic takes its progress along once its files are gone.
    catalog.commit(deleted("a", 1), NOW).unwrap();
    catalog.commit(Event::TopicPurged { id: TopicId(1) }, NOW).unwrap();
    catalog.commit(Event::GroupDeleted { name: GroupName::new("g").unwrap() }, NOW).unwrap();
    catalog.commit(Event::GroupDeclared(group("g")), NOW).unwrap();
    assert_eq!(members(&catalog, "g"), 0);
    assert_eq!(seen(&catalog, "g"), []);
    drop(catalog);
    let (_, catalog, _) = open(&disk, path).unwrap();
    assert_eq!((seen(&catalog, "g"), seen(&catalog, "g/x")), (vec![], vec![]));
}

/// Power fails at every operation of a commit of many batches: what is there afterwards is a beginning of it, and the
/// next commit goes on from there.
#[test]
fn a_power_cut_in_a_large_commit_leaves_a_beginning_of_it() {
    let many = || {
        let mut events = vec![created("a", 1), Event::GroupDeclared(group("g"))];
        let metadata = "m".repeat(300_000);
        events.extend((0..8).map(|partition| {
            let position = Position { offset: 1, metadata: metadata.clone(), time_ms: NOW, leader_epoch: None };
            let place = Place { partition, ..place("g", 1) };
            Event::PositionSet { place, position: Some(position) }
        }));
        events
    };
    for cut in 0.. {
        let sim = SimDisk::new(crate::disk::SimOptions { seed: cut, ..Default::default() });
        let disk = disk_of(&sim);
        let (_, mut catalog, _) = open(&disk, Path::new("/data")).unwrap();
        sim.cut_power_at(cut);
        let made = catalog.commit_all(many(), NOW).is_ok();
        drop(catalog);
        let disk = disk_of(&sim.reboot());
        let (_, mut catalog, _) = open(&disk, Path::new("/data")).unwrap();
        let found: Vec<u32> =
            catalog.all_progress(&GroupName::new("g").unwrap()).map(|((_, partition), _)| partition).collect();
        assert_eq!(found, (0..found.len() as u32).collect::<Vec<_>>(), "cut {cut}");
        if made {
            assert_eq!(found.len(), 8, "cut {cut}");
        }
        let rest: Vec<Event> = if catalog.topic(&name("a")).is_some() { many().split_off(1) } else { many() };
        catalog.commit_all(rest, NOW).unwrap();
        assert_eq!(catalog.all_progress(&GroupName::new("g").unwrap()).count(), 8);
        if made {
            return;
        }
    }
}

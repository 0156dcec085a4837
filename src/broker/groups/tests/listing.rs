use super::positions::{name, with_records};
use super::table::{Bench, client, committed, queue};
use crate::broker::*;

/// All names, page by page.
fn paged(broker: &Broker, prefix: &str, limit: usize) -> (Vec<String>, usize) {
    let (mut names, mut pages) = (Vec::new(), 0);
    let mut of = PageOf { prefix: prefix.to_owned(), after: String::new(), limit };
    loop {
        let page = broker.group_page(&of);
        pages += 1;
        assert!(page.lines.len() <= limit);
        names.extend(page.lines.iter().map(|line| line.entry.name.to_string()));
        match names.last() {
            Some(last) if page.more => of.after.clone_from(last),
            _ => return (names, pages),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_are_listed_page_by_page_each_once_with_what_fills_the_table() {
    let (_bench, broker) = Bench::new(|_| {});
    with_records(&broker, 10).await;
    for number in 0..25 {
        client(1).scope(committed(&broker, &format!("a-{number:02}"), "")).await.unwrap();
    }
    client(2).scope(committed(&broker, "b", "four")).await.unwrap();
    let member = broker.join_queue(queue("c", "orders", None)).await.unwrap();
    let all: Vec<String> = broker.list_groups().iter().map(|entry| entry.name.to_string()).collect();
    assert_eq!(all.len(), 27);
    for limit in [1, 5, 26, 27, 1_000] {
        assert_eq!(paged(&broker, "", limit).0, all, "{limit} at a time");
    }
    assert_eq!(paged(&broker, "a-", 5), (all[..25].to_vec(), 5));
    assert_eq!(paged(&broker, "a-1", 100).0, all[10..20]);
    assert_eq!(paged(&broker, "nothing", 100), (Vec::new(), 1));
    // A name that is gone meanwhile is a place all the same, also one before the prefix.
    let page = |prefix: &str, after: &str| {
        let of = PageOf { prefix: prefix.to_owned(), after: after.to_owned(), limit: 1 };
        broker.group_page(&of).lines.remove(0)
    };
    assert_eq!(page("", "a-245").entry.name, name("b"));
    assert_eq!(page("b", "a").entry.name, name("b"));
    let line = page("b", "");
    assert_eq!((line.members, line.counts.positions, line.counts.metadata, line.made_by), (0, 1, 4, Some(client(2))));
    assert_eq!(page("c", "").members, 1);
    let totals = broker.group_totals();
    assert_eq!((totals.groups, totals.queue, totals.with_members), (27, 1, 1));
    assert_eq!((totals.counts.positions, totals.counts.metadata), (26, 4));
    drop(member);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_listed_page_by_page_each_once() {
    let (_bench, broker) = Bench::new(|_| {});
    for topic in ["b", "a.x", "a.y", "c"] {
        let new =
            NewTopic { name: topic.parse().unwrap(), partitions: Some(2), settings: Vec::new(), if_not_exists: false };
        broker.create_topic(new).await.unwrap();
    }
    let page = |prefix: &str, after: &str, limit| {
        let page = broker.topic_page(&PageOf { prefix: prefix.to_owned(), after: after.to_owned(), limit });
        (page.lines.into_iter().map(|topic| topic.summary.name.to_string()).collect::<Vec<_>>(), page.more)
    };
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    assert_eq!(page("", "", 2), (names(&["a.x", "a.y"]), true));
    assert_eq!(page("", "a.y", 2), (names(&["b", "c"]), false));
    assert_eq!(page("a.", "", 9), (names(&["a.x", "a.y"]), false));
    let totals = broker.topic_totals();
    assert_eq!((totals.topics, totals.partitions), (4, 8));
    broker.shutdown().await;
}

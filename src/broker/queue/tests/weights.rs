//! What readers hold of a batch is bounded, whatever it becomes when it is opened.

use std::sync::Arc;

use super::groups::*;
use crate::base::{TopicName, limits};
use crate::broker::records::Reading;
use crate::broker::*;
use crate::expr::Filter;
use crate::record::{BatchBuilder, BatchOptions, Compression};

/// Produces a batch of records of this size, compressed.
async fn produce_many(broker: &Arc<Broker>, count: usize, bytes: usize) {
    broker.metadata(&TopicName::new("orders").unwrap(), true).await.unwrap();
    let options = BatchOptions { compression: Compression::Zstd, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    (0..count).for_each(|at| builder.push(5, None, Some(&vec![(at % 7) as u8; bytes]), &[]));
    let batch = broker.look_into(&WorkKey::new(), "orders", builder.build()).await;
    broker.produce_at("orders", 0, batch, AckLevel::Durable, Place::CommitThread).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_batch_of_a_million_records_is_read_in_portions() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    let count = limits::RECORDS_PER_BATCH as usize;
    produce_many(&broker, count, 1).await;
    // The look into it gives way to others.
    assert!(broker.workers.portions.get() > 2, "{} portions", broker.workers.portions.get());
    let (mut reading, mut at, mut portions) = (Reading::with_room(), 0, 0);
    let reads = broker.metrics().reads.get();
    while at < count as u64 {
        let read = broker.read_on(&mut reading, ("orders", 0), at, 256 * 1024, Isolation::Committed).await.unwrap();
        assert!(read.records.len() <= 4096 && read.unreadable.is_empty());
        assert_eq!(read.records[0].offset, at);
        at = read.next;
        portions += 1;
    }
    assert!(at == count as u64 && portions >= count.div_ceil(4096), "{portions}");
    // Once to find out how large it is, and once with room for it.
    assert!(broker.metrics().reads.get() - reads <= 2, "it is not opened for each portion");
    assert!(broker.rooms.taken() <= 4 << 20, "{}", broker.rooms.taken());
    reading.close();
    assert_eq!(broker.rooms.taken(), 0);
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_share_one_ceiling_and_a_record_at_the_limit_gets_through() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce_many(&broker, 1, 60 << 20).await;
    produce_many(&broker, 60, 1 << 20).await;
    let readers = (0..12).map(|_| {
        let broker = Arc::clone(&broker);
        tokio::spawn(async move {
            let (mut reading, mut at) = (Reading::with_room(), 0);
            while at < 61 {
                let read = broker.read_on(&mut reading, ("orders", 0), at, 256 * 1024, Isolation::Committed);
                let read = read.await.unwrap();
                let bytes: usize = read.records.iter().map(|record| record.weight()).sum();
                let room = broker.rooms.taken();
                // What one holds, all hold together.
                assert!(bytes <= room && room <= limits::READERS_BYTES, "{bytes} {room}");
                assert!(read.records.len() == 1 || bytes <= 2 << 20, "{bytes}");
                at = read.next;
            }
        })
    });
    for reader in readers.collect::<Vec<_>>() {
        reader.await.unwrap();
    }
    assert_eq!(broker.rooms.taken(), 0);
    let member = broker.join_queue(join("orders", 1)).await.unwrap();
    for offset in 0..61 {
        let (handed, records) = next(&member).await;
        assert_eq!((records.len(), records[0].offset), (1, offset));
        member.settle(&[say(&handed, offset, offset + 1, Verdict::Ack)], false).await.unwrap();
    }
    broker.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_as_much_as_there_is_room_for() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce_many(&broker, 2000, 4000).await;
    produce_many(&broker, 3, 300_000).await;
    let some = Arc::new(Filter::compile("offset % 10 != 3").unwrap());
    let all = Arc::new(Filter::compile("true").unwrap());
    let key = WorkKey::new();
    for (filter, wanted) in [(&some, 1803), (&all, 2003)] {
        let (mut at, mut got, mut most) = (0, Vec::new(), 64 * 1024);
        while at < 2003 {
            let mut reader = broker.reader("orders", 0).unwrap();
            let read = ReadAt { offset: at, max_bytes: 1 << 20, largest: usize::MAX, skip_damaged: false };
            let fetched = reader.read(read).await.unwrap();
            let wire = fetched.bytes.len();
            let how = FilterAt { from: at, skip_damaged: false, most };
            let left = broker.filter(&key, filter, "orders", 0, fetched.bytes, how).await.unwrap();
            if let Some(larger) = left.larger {
                assert!(most == 64 * 1024 && larger > 300_000 && at >= 2000, "{larger} at {at}");
                most = larger;
                continue;
            }
            assert!(left.batches.len() <= wire + most + 8000, "{} bytes", left.batches.len());
            let records = records(left.batches);
            // A batch that stays as it is may begin earlier.
            got.extend(records.iter().map(|record| record.offset).filter(|offset| *offset >= at));
            at = left.next.unwrap_or(fetched.next_offset);
            most = 64 * 1024;
        }
        let expected: Vec<u64> = (0..2003).filter(|at| wanted == 2003 || at % 10 != 3).collect();
        assert_eq!(got.len(), wanted);
        assert!(got == expected);
    }
    broker.shutdown().await;
}

#[tokio::test]
async fn a_batch_for_which_there_is_no_room_is_told_and_not_read() {
    let dir = tempfile::tempdir().unwrap();
    let broker = open(dir.path());
    produce(&broker, "orders", 0..3).await;
    produce(&broker, "orders", 0..300).await;
    let mut reader = broker.reader("orders", 0).unwrap();
    let at = |offset, largest| ReadAt { offset, max_bytes: 1 << 20, largest, skip_damaged: false };
    let whole = reader.read(at(0, usize::MAX)).await.unwrap();
    let first = reader.read(at(0, 500)).await.unwrap();
    assert_eq!((first.next_offset, first.needs), (303, None), "it is the first that must fit");
    let told = reader.read(at(3, 500)).await.unwrap();
    let needs = told.needs.unwrap();
    assert!(told.bytes.is_empty() && told.next_offset == 3 && needs > 500 && needs < whole.bytes.len());
    // From the middle of it, too.
    assert_eq!(reader.read(at(200, needs - 1)).await.unwrap().needs, Some(needs));
    assert_eq!(reader.read(at(200, needs)).await.unwrap().bytes.len(), needs);
    broker.shutdown().await;
}

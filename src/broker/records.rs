//! Reading records, for the broker's own use: a portion at a time.

use crate::base::{ErrorKind, Offset, PartitionId};
use crate::record::Record;

use super::fetch::end_of;
use super::opened::{Most, Opened, Stop, Unreadable};
use super::reader::leave_out;
use super::room::Room;
use super::{Broker, BrokerError, Isolation, Marked, ReadAt};

/// Room that a reader takes: for batches, a window of their codec, and a portion of records.
const ROOM_BYTES: usize = 2 * 1024 * 1024;
/// Bytes of the largest batch that fits it, and of the largest record in one that is compressed.
const FITS_BYTES: usize = 512 * 1024;

/// What was read at a time.
#[derive(Debug)]
pub(crate) struct Read {
    /// The records, in order.
    pub(crate) records: Vec<Record>,
    /// What between them cannot be read.
    pub(crate) unreadable: Vec<Unreadable>,
    /// The offset behind what was read.
    pub(crate) next: Offset,
}

/// A reader's place in a partition: batches that were read, and records of which are still to come.
pub(crate) struct Reading {
    /// Whether it takes room for what it holds; others read one at a time.
    takes_room: bool,
    room: Option<Room>,
    opened: Option<Opened>,
    /// Behind the batches.
    end: Offset,
}

impl Reading {
    /// One that has read nothing, and takes room for what it will.
    pub(crate) fn with_room() -> Self {
        Self { takes_room: true, room: None, opened: None, end: 0 }
    }

    /// One that has read nothing, for a look at records that is soon over.
    pub(crate) fn passing() -> Self {
        Self { takes_room: false, ..Self::with_room() }
    }

    /// Lets go of all that it holds.
    pub(crate) fn close(&mut self) {
        (self.opened, self.room) = (None, None);
    }

    /// Whether it holds anything.
    pub(crate) fn is_open(&self) -> bool {
        self.room.is_some() || self.opened.is_some()
    }

    /// Whether it holds more than the usual, for a large batch or record.
    pub(crate) fn is_large(&self) -> bool {
        self.room.as_ref().is_some_and(|room| room.bytes() > ROOM_BYTES)
    }
}

impl Broker {
    /// The same as [`Broker::read_on`], with what cannot be read passed over, loudly, in the name of a reader.
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn records_on(
        &self,
        reading: &mut Reading,
        reader: &str,
        (topic, partition): (&str, PartitionId),
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<(Vec<Record>, Offset), BrokerError> {
        let Read { records, unreadable, next } =
            self.read_on(reading, (topic, partition), from, max_bytes, isolation).await?;
        for one in unreadable {
            self.pass_over(reader, topic, partition, &one).await;
        }
        Ok((records, next))
    }

    /// A portion of the records from an offset on (or from the log start, if that is later) and the offset behind it: that is
    /// further than `from` as long as there is more. Control batches are passed over. `reading` goes on where it was, if that
    /// is where it is to go on.
    ///
    /// # Errors
    /// Those of [`Broker::fetch`].
    pub(crate) async fn read_on(
        &self,
        reading: &mut Reading,
        (topic, partition): (&str, PartitionId),
        from: Offset,
        max_bytes: usize,
        isolation: Isolation,
    ) -> Result<Read, BrokerError> {
        let place = (topic, partition);
        let mut from = from;
        let mut need = 0;
        let _turn = match reading.takes_room {
            true => None,
            false => self.passing.acquire().await.ok(),
        };
        loop {
            let (opened, end) = match reading.opened.take_if(|opened| need == 0 && opened.next_offset() == from) {
                Some(opened) => (opened, reading.end),
                None => {
                    let found = self.topic(topic)?;
                    let log = found.partition(partition)?.log()?;
                    let (start, end) = log.with(|log| (log.start_offset(), end_of(log, isolation)));
                    from = from.max(start);
                    if from >= end {
                        reading.close();
                        return Ok(Read { records: Vec::new(), unreadable: Vec::new(), next: from });
                    }
                    self.take_room(reading, need).await?;
                    let largest = if need == 0 && reading.takes_room { FITS_BYTES.max(max_bytes) } else { usize::MAX };
                    let at = ReadAt { offset: from, max_bytes, largest, skip_damaged: false };
                    let Marked { fetched, aborted, .. } = self.reader(topic, partition)?.read_as(at, isolation).await?;
                    if let Some(bytes) = fetched.needs {
                        need = bytes + ROOM_BYTES;
                        continue;
                    }
                    if fetched.next_offset <= from {
                        let message = format!("nothing can be read at offset {from} of {topic}/{partition}");
                        return Err(BrokerError::new(ErrorKind::Internal, message));
                    }
                    let bytes = match isolation {
                        Isolation::Committed => leave_out(fetched.bytes, &aborted)?,
                        Isolation::Uncommitted => fetched.bytes,
                    };
                    (Opened::new(bytes, from), fetched.next_offset)
                }
            };
            let held = opened.bytes() + ROOM_BYTES;
            // Once as it is read, once as it is handed on.
            let room = reading.room.as_ref().map_or(usize::MAX, Room::bytes);
            let record = (room.saturating_sub(held) / 2).max(FITS_BYTES);
            let (opened, (taken, stop)) = self.take_opened(place, opened, Most { record, ..Most::PORTION }).await?;
            if let Stop::Larger(bytes) = stop {
                need = held + 2 * bytes;
                continue;
            }
            let next = if stop == Stop::End { end } else { opened.next_offset() };
            if stop == Stop::Full {
                (reading.opened, reading.end) = (Some(opened), end);
            }
            let mut read = Read { records: Vec::with_capacity(taken.len()), unreadable: Vec::new(), next };
            for record in taken {
                match record {
                    Ok(record) => read.records.push(record),
                    Err(unreadable) => read.unreadable.push(unreadable),
                }
            }
            return Ok(read);
        }
    }

    /// Takes so much room, the usual at least. A reader that has too little lets go of all first.
    async fn take_room(&self, reading: &mut Reading, bytes: usize) -> Result<(), BrokerError> {
        let bytes = bytes.max(ROOM_BYTES);
        reading.opened = None;
        // What a large batch took is given back, too.
        let fits = reading.room.as_ref().is_some_and(|room| room.bytes() >= bytes && room.bytes() <= 2 * bytes);
        if reading.takes_room && !fits {
            reading.room = None;
            let stopping = || BrokerError::new(ErrorKind::ShuttingDown, "the broker is stopping");
            reading.room = Some(self.rooms.take(bytes).await.ok_or_else(stopping)?);
        }
        Ok(())
    }
}

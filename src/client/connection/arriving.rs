//! What comes in on a connection: answers to who waits for them, pushes to their feeds.

use super::*;

impl Shared {
    /// Reads until the connection is over; returns why.
    pub(super) async fn read_frames(
        &self,
        mut socket: OwnedReadHalf,
        mut decoder: FrameDecoder,
        mut buffer: BytesMut,
    ) -> ClientError {
        loop {
            loop {
                match decoder.decode(&mut buffer) {
                    Ok(Some(frame)) => {
                        if let Err(error) = self.dispatch(frame) {
                            return error;
                        }
                    }
                    Ok(None) => break,
                    Err(error) => return error.into(),
                }
            }
            // The header has been checked: this is at most one frame of the allowed size.
            let missing = match decoder.peek(&buffer) {
                Ok(Some(header)) => (header.length as usize + 4).saturating_sub(buffer.len()),
                _ => 0,
            };
            buffer.reserve(missing.max(READ_BYTES));
            match socket.read_buf(&mut buffer).await {
                Ok(0) => return ClientError::new(ErrorKind::Disconnected, "the server closed the connection"),
                Ok(_) => {}
                Err(error) => return broken(error),
            }
        }
    }

    fn dispatch(&self, frame: Frame) -> Result<(), ClientError> {
        if frame.has(flags::RESPONSE) {
            return self.answered(frame);
        }
        match Kind::from_code(frame.kind) {
            Some(Kind::Delivery) => {
                let delivery: Delivery = frame.decode()?;
                self.push(FeedId::Subscription(frame.correlation), Push::Delivery(delivery, frame.payload));
            }
            Some(Kind::Handed) => {
                let handed: Handed = frame.decode()?;
                self.push(FeedId::Member(frame.correlation), Push::Handed(handed, frame.payload));
            }
            Some(Kind::Asked) => {
                let asked: Asked = frame.decode()?;
                self.push(FeedId::Responder(frame.correlation), Push::Asked(asked, frame.payload));
            }
            Some(Kind::Progress) => {
                let part: ReplyPart = frame.decode()?;
                self.part(frame.correlation, part.headers, frame.payload);
            }
            Some(Kind::TopicsChanged) => self.topics.send_modify(|version| *version += 1),
            Some(Kind::SubscriptionEnded) => self.end_feed(FeedId::Subscription(frame.correlation), refusal(&frame)),
            Some(Kind::MemberEnded) => self.end_feed(FeedId::Member(frame.correlation), refusal(&frame)),
            Some(Kind::Goodbye) => return Err(refusal(&frame).context("the server closed the connection")),
            // A push of a newer server, which this client has not asked for.
            _ => {}
        }
        Ok(())
    }

    fn push(&self, feed: FeedId, push: Push) {
        // One that nobody listens to any more is being closed.
        if let Some(feed) = self.lock().feeds.get(&feed) {
            let _ = feed.send(push);
        }
    }

    /// A part of an answer that is still to come.
    fn part(&self, correlation: u64, headers: Vec<NamedValue>, body: Bytes) {
        if let Some(waiting) = self.lock().pending.get_mut(&correlation) {
            match &waiting.feed {
                Some(feed) => _ = feed.send(Push::Part(headers, body)),
                None => waiting.parts.push(body),
            }
        }
    }

    fn end_feed(&self, feed: FeedId, error: ClientError) {
        if let Some(feed) = self.lock().feeds.remove(&feed) {
            let _ = feed.send(Push::Ended(error));
        }
    }

    fn answered(&self, frame: Frame) -> Result<(), ClientError> {
        let opened = match Kind::from_code(frame.kind) {
            _ if frame.has(flags::ERROR) => None,
            Some(Kind::Subscribe) => Some(FeedId::Subscription(frame.decode::<SubscribeOk>()?.subscription)),
            Some(Kind::JoinGroup) => Some(FeedId::Member(frame.decode::<JoinGroupOk>()?.member)),
            Some(Kind::Respond) => Some(FeedId::Responder(frame.decode::<RespondOk>()?.responder)),
            _ => None,
        };
        let mut state = self.lock();
        let waiting = state.pending.remove(&frame.correlation);
        if let (Some(id), Some(feed)) = (opened, waiting.as_ref().and_then(|waiting| waiting.feed.clone())) {
            state.feeds.insert(id, feed);
        }
        drop(state);
        let mut answer = if frame.has(flags::ERROR) { Err(refusal(&frame)) } else { Ok(frame) };
        if let (Ok(frame), Some(waiting)) = (&mut answer, &waiting)
            && !waiting.parts.is_empty()
        {
            frame.payload = [waiting.parts.concat().as_slice(), &frame.payload].concat().into();
        }
        let taken = waiting.is_some_and(|waiting| waiting.answer.send(answer).is_ok());
        if let (Some(id), false) = (opened, taken) {
            self.lock().feeds.remove(&id);
            self.close_feed(id);
        }
        Ok(())
    }

    /// Ends a feed at the server; nobody waits for the answer.
    pub(super) fn close_feed(&self, id: FeedId) {
        let head = match id {
            FeedId::Subscription(subscription) => {
                encode_frame(Kind::Unsubscribe.code(), 0, UNHEARD, &Unsubscribe { subscription }, 0)
            }
            FeedId::Responder(responder) => {
                encode_frame(Kind::StopResponding.code(), 0, UNHEARD, &StopResponding { responder }, 0)
            }
            FeedId::Member(member) => encode_frame(Kind::LeaveGroup.code(), 0, UNHEARD, &LeaveGroup { member }, 0),
        };
        if let (Ok(head), Some(outbox)) = (head, self.outbox.upgrade()) {
            let _ = outbox.send(Outgoing { head: head.freeze(), payload: Bytes::new(), room: 0 });
        }
    }
}

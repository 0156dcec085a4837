//! Connections that know what has gone over them. A peer may close an idle connection at any time, also just as the next call is
//! written to it. Such a call was not looked at, or not answered for sure, and is made again on a new connection: the receiver drops
//! a repeat by its `webhook-id`.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use http::{Extensions, Uri};
use hyper::rt::{Read, ReadBuf, ReadBufCursor, Write};
use hyper_util::client::legacy::Error;
use hyper_util::client::legacy::connect::{Connected, Connection};
use tower_service::Service;

/// Bytes read at a time.
const BLOCK: usize = 8 * 1024;

/// What has gone over a connection.
#[derive(Debug, Clone, Default)]
struct Traffic(Arc<Seen>);

#[derive(Debug, Default)]
struct Seen {
    /// Something was answered, ever.
    answered: AtomicBool,
    /// Something was sent since.
    asked: AtomicBool,
}

impl Traffic {
    fn sent(&self) {
        self.0.asked.store(true, Ordering::Relaxed);
    }

    fn received(&self) {
        self.0.answered.store(true, Ordering::Relaxed);
        self.0.asked.store(false, Ordering::Relaxed);
    }
}

/// Whether a call failed on a connection that had served one before, and before anything of its answer came.
pub fn was_stale(error: &Error) -> bool {
    let Some(connected) = error.connect_info() else { return false };
    let mut extras = Extensions::new();
    connected.get_extras(&mut extras);
    extras
        .get::<Traffic>()
        .is_some_and(|Traffic(seen)| seen.answered.load(Ordering::Relaxed) && seen.asked.load(Ordering::Relaxed))
}

/// Makes connections that know what has gone over them.
#[derive(Debug, Clone)]
pub struct Watching<C>(pub C);

/// A connection that knows what has gone over it.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    traffic: Traffic,
}

impl<C> Service<Uri> for Watching<C>
where
    C: Service<Uri>,
    C::Future: Send + 'static,
{
    type Response = Watched<C::Response>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, C::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), C::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async move { Ok(Watched { stream: connecting.await?, traffic: Traffic::default() }) })
    }
}

impl<S: Connection> Connection for Watched<S> {
    fn connected(&self) -> Connected {
        self.stream.connected().extra(self.traffic.clone())
    }
}

impl<S: Read + Unpin> Read for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        mut into: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let mut block = [0; BLOCK];
        let room = into.remaining().min(BLOCK);
        let mut read = ReadBuf::new(&mut block[..room]);
        ready!(Pin::new(&mut self.stream).poll_read(context, read.unfilled()))?;
        if !read.filled().is_empty() {
            self.traffic.received();
        }
        into.put_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}

impl<S: Write + Unpin> Write for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.traffic.sent();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.traffic.sent();
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }
}

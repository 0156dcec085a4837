//! What hyper answers itself to a request whose head it cannot read has no body; here it becomes a problem document, as every other
//! refusal of this door is one.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::StatusCode;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::problem::Problem;
use crate::base::limits;

/// Such an answer has less.
const HEAD_BYTES: usize = 1024;

/// A socket; an answer without a body to an unreadable request gets one.
pub struct Unread<S> {
    socket: S,
    /// An answer that is on its way instead of hyper's, and how much of it has gone.
    instead: Vec<u8>,
    gone: usize,
}

impl<S: AsyncWrite + Unpin> Unread<S> {
    /// Watches what is written to a socket.
    pub fn new(socket: S) -> Self {
        Self { socket, instead: Vec::new(), gone: 0 }
    }

    fn send_instead(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.gone < self.instead.len() {
            let sent = ready!(Pin::new(&mut self.socket).poll_write(context, &self.instead[self.gone..]))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.gone += sent;
        }
        Poll::Ready(Ok(()))
    }
}

/// The answer with a problem document, if it is one of hyper's own to a head that it cannot read.
pub(super) fn with_document(answer: &[u8]) -> Option<Vec<u8>> {
    if answer.len() > HEAD_BYTES || !answer.starts_with(b"HTTP/1.1 4") {
        return None;
    }
    let head = std::str::from_utf8(answer.strip_suffix(b"\r\n\r\n")?).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?;
    let status = StatusCode::from_bytes(status.as_bytes()).ok()?;
    let (lengths, others): (Vec<&str>, Vec<&str>) =
        lines.partition(|line| line.to_ascii_lowercase().starts_with("content-length:"));
    let has_body = lengths.iter().any(|line| line.split(':').nth(1).is_none_or(|length| length.trim() != "0"));
    let has_type = others.iter().any(|line| line.to_ascii_lowercase().starts_with("content-type:"));
    if lengths.is_empty() || has_body || has_type {
        return None;
    }
    let detail = match status {
        StatusCode::BAD_REQUEST => "the head of the request cannot be read (RFC 9112)".to_owned(),
        StatusCode::URI_TOO_LONG => {
            format!("the head of the request has a target that is too long: {} bytes at most", limits::HTTP_HEAD_BYTES)
        }
        StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => {
            format!(
                "the head of the request has more than {} headers or {} bytes",
                limits::HTTP_HEADERS,
                limits::HTTP_HEAD_BYTES
            )
        }
        _ => return None,
    };
    let body = format!("{}\n", Problem::wrong(detail).with_status(status).body());
    let mut whole = format!("HTTP/1.1 {} {}\r\n", status.as_str(), status.canonical_reason().unwrap_or_default());
    for line in others {
        whole.push_str(line);
        whole.push_str("\r\n");
    }
    let length = body.len();
    whole.push_str(&format!("content-type: application/problem+json\r\ncontent-length: {length}\r\n\r\n{body}"));
    Some(whole.into_bytes())
}

impl<S: AsyncRead + Unpin> AsyncRead for Unread<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Unread<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.send_instead(context))?;
        if let Some(instead) = with_document(bytes) {
            (self.instead, self.gone) = (instead, 0);
            return Poll::Ready(Ok(bytes.len()));
        }
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.send_instead(context))?;
        // An answer of the door has its body in a slice of its own.
        if let [one] = slices
            && let Some(instead) = with_document(one)
        {
            (self.instead, self.gone) = (instead, 0);
            return Poll::Ready(Ok(one.len()));
        }
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_instead(context))?;
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.send_instead(context))?;
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

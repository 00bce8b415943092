//! Bodies of requests that are answered before they are read, such as those of refused commands.
//!
//! In HTTP/1.1 the next request begins behind the body. A short body is therefore read and thrown
//! away. Behind a long one the connection ends, and the answer says so.

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use hyper::{
    HeaderMap,
    body::{Frame, Incoming, SizeHint},
    header,
};
use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{sync::oneshot, time::timeout};

/// The most bytes of an unread body that are thrown away, and how long that may take.
const MAX_BYTES: u64 = 64 * 1024;
const MAX_TIME: Duration = Duration::from_secs(1);

/// A body that comes back when its reader drops it.
struct Lent {
    body: Option<Incoming>,
    owner: Option<oneshot::Sender<Incoming>>,
}

/// The claim on a body that was lent.
pub(super) struct Unread {
    back: oneshot::Receiver<Incoming>,
    /// The client sends the body only once it is asked for.
    waits: bool,
}

/// Lends a body to the handler of a request.
pub(super) fn lend(body: Incoming, headers: &HeaderMap) -> (Body, Option<Unread>) {
    if body.is_end_stream() {
        return (Body::empty(), None);
    }
    let (owner, back) = oneshot::channel();
    let waits = headers.contains_key(header::EXPECT);
    let lent = Lent { body: Some(body), owner: Some(owner) };
    (Body::new(lent), Some(Unread { back, waits }))
}

impl Unread {
    /// Throws away what is left of the body. Returns whether the connection can go on behind it.
    pub async fn discard(mut self) -> bool {
        // A body that is still held will be read.
        let Ok(mut body) = self.back.try_recv() else { return true };
        if body.is_end_stream() {
            return true;
        }
        if self.waits || body.size_hint().lower() > MAX_BYTES {
            return false;
        }
        let mut left = MAX_BYTES;
        let all = async {
            while let Some(Ok(frame)) = body.frame().await {
                let length = frame.data_ref().map_or(0, Bytes::len) as u64;
                left = left.checked_sub(length)?;
            }
            body.is_end_stream().then_some(())
        };
        timeout(MAX_TIME, all).await.is_ok_and(|all| all.is_some())
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        if let (Some(body), Some(owner)) = (self.body.take(), self.owner.take()) {
            // The owner may have given up.
            let _ = owner.send(body);
        }
    }
}

impl HttpBody for Lent {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.body {
            Some(body) => Pin::new(body).poll_frame(context),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), HttpBody::size_hint)
    }
}

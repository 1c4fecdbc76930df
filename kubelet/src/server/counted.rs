//! Counts requests, refused ones too, until the last byte of their answer has gone.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{
    body::{Body, HttpBody},
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};

use crate::measures::{Measures, http::InFlight};

/// The middleware.
pub(super) async fn count(State(measures): State<Arc<Measures>>, request: Request, next: Next) -> Response {
    let in_flight = InFlight::begin(&measures, request.method().as_str(), request.uri().path());
    next.run(request).await.map(|body| Body::new(Counted { body, _in_flight: in_flight }))
}

/// A body that counts as being sent until it is dropped.
struct Counted {
    body: Body,
    _in_flight: InFlight,
}

impl HttpBody for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

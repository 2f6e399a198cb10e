//! `/events` and `/jobs/{id}/events`: what happens, as it happens, as server-sent events.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, Uri};
use axum::response::sse::{Event as Line, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use netpulse_model::api::{ErrorBody, GapBody};
use netpulse_model::event::{Event, EventId, What};
use netpulse_queue::{Follow, Followed};

use super::jobs;
use crate::app::App;
use crate::error::ApiError;
use crate::query::Params;
use crate::reply::Segment;

/// Silence after which a comment is sent, so that nothing on the way thinks the stream dead.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// Follow one job: queued, started, each line, ended. The stream ends with the job.
#[utoipa::path(
    get, path = "/jobs/{id}/events", tag = "events",
    params(
        ("id" = String, Path, description = "The job"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Resume after this event"),
        ("after" = Option<u64>, Query, description = "The same, for clients that cannot set headers"),
    ),
    responses(
        (status = 200, description = "Server-sent events: `id`, `event` (queued, started, sending, line, retrying, ended, gap) and `data`, the event as JSON", body = Event, content_type = "text/event-stream"),
        (status = 404, description = "No such job", body = ErrorBody),
        (status = 422, description = "`Last-Event-ID` or `after` is no event id", body = ErrorBody),
    )
)]
pub(crate) async fn of_job(
    State(app): State<App>,
    Segment(id): Segment,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let after = resume(&uri, &headers)?;
    let known = jobs::known_id(&id)?;
    if app.store(app.queue.job(known)).await?.is_none() {
        return Err(jobs::not_found(&id));
    }
    Ok(answer(&app, Follow::Job(known), after))
}

/// Follow every job. The stream ends when the server stops.
#[utoipa::path(
    get, path = "/events", tag = "events",
    params(
        ("Last-Event-ID" = Option<u64>, Header, description = "Resume after this event; without it, from the oldest kept"),
        ("after" = Option<u64>, Query, description = "The same, for clients that cannot set headers"),
    ),
    responses(
        (status = 200, description = "Server-sent events, as for one job. `gap` says that events before its `before` are gone", body = Event, content_type = "text/event-stream"),
        (status = 422, description = "`Last-Event-ID` or `after` is no event id", body = ErrorBody),
    )
)]
pub(crate) async fn all(State(app): State<App>, uri: Uri, headers: HeaderMap) -> Result<Response, ApiError> {
    let after = resume(&uri, &headers)?;
    Ok(answer(&app, Follow::All, after))
}

/// Where to resume: the header, which browsers send by themselves, else `?after=`.
fn resume(uri: &Uri, headers: &HeaderMap) -> Result<Option<EventId>, ApiError> {
    let read = |text: &str| {
        text.trim().parse::<u64>().map(EventId).map_err(|_| "Input should be an event id, a whole number")
    };
    match headers.get("last-event-id") {
        None => Params::of(uri).parsed("after", read),
        Some(value) => {
            let text = value.to_str().unwrap_or_default();
            if text.trim().is_empty() {
                return Ok(None);
            }
            read(text).map(Some).map_err(|msg| {
                let mut error = netpulse_model::FieldError::new(&["Last-Event-ID"], msg);
                error.input = text.into();
                ApiError::unprocessable("header", vec![error])
            })
        }
    }
}

fn answer(app: &App, what: Follow, after: Option<EventId>) -> Response {
    let one_job = matches!(what, Follow::Job(_));
    let followed = app.queue.follow(what, after);
    let lines = until_ended(followed, one_job)
        .take_until(app.shutdown.clone().cancelled_owned())
        .map(|followed| Ok::<_, Infallible>(written(&followed)));
    let mut response =
        Sse::new(lines).keep_alive(KeepAlive::new().interval(KEEP_ALIVE).text("keep-alive")).into_response();
    // Proxies that buffer would hold events back.
    response.headers_mut().insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// For one job, nothing after its end, whether or not the engine ends the stream itself.
fn until_ended(followed: BoxStream<'static, Followed>, one_job: bool) -> impl Stream<Item = Followed> + Send {
    stream::unfold(Some(followed), move |open| async move {
        let mut followed = open?;
        let item = followed.next().await?;
        let over = one_job && matches!(&item, Followed::Event(Event { what: What::Ended { .. }, .. }));
        Some((item, (!over).then_some(followed)))
    })
}

fn written(followed: &Followed) -> Line {
    let (line, json) = match followed {
        Followed::Event(event) => (
            Line::default().id(event.id.0.to_string()).event(event.what.name()),
            serde_json::to_string(event),
        ),
        Followed::Gap(before) => {
            (Line::default().event("gap"), serde_json::to_string(&GapBody { before: *before }))
        }
    };
    // Text keys only: writing to memory does not fail.
    line.data(json.unwrap_or_default())
}

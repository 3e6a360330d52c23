//! What is answered to which path.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Method, Request, Response, StatusCode, header};

use super::Site;
use super::snapshot::Snapshot;
use crate::lease::time::BootInstant;

const PAGE: &str = include_str!("page.html");

const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";

/// The page brings its own script and style and loads nothing from elsewhere;
/// what comes from the database is put in as text only.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Answers a request.
pub fn respond<B>(request: &Request<B>, site: &Site) -> Response<Full<Bytes>> {
    if request.method() != Method::GET && request.method() != Method::HEAD {
        let mut refused = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        refused
            .headers_mut()
            .insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    let now = (site.clock)();
    // Copied, so that the keeper never waits for a page to be made.
    let snapshot = site.snapshot.borrow().clone();
    match request.uri().path() {
        "/" => with_type(StatusCode::OK, HTML, PAGE),
        "/livez" => probe(snapshot.live(now)),
        "/readyz" => probe(snapshot.ready(now)),
        "/leader" => {
            let status = if snapshot.leads(now) {
                StatusCode::OK
            } else {
                StatusCode::SERVICE_UNAVAILABLE
            };
            with_type(status, JSON, state(&snapshot, now))
        }
        "/state" => with_type(StatusCode::OK, JSON, state(&snapshot, now)),
        "/metrics" => {
            let text = site.metrics.text(&snapshot, now, (site.dropped_lines)());
            with_type(StatusCode::OK, OPENMETRICS, text)
        }
        _ => plain(
            StatusCode::NOT_FOUND,
            "see /, /livez, /readyz, /leader, /state, /metrics",
        ),
    }
}

fn state(snapshot: &Snapshot, now: BootInstant) -> String {
    // Plain data with text keys: there is nothing that could fail.
    serde_json::to_string(&snapshot.view(now)).unwrap_or_default()
}

fn probe(verdict: Result<(), String>) -> Response<Full<Bytes>> {
    match verdict {
        Ok(()) => plain(StatusCode::OK, "ok"),
        Err(why) => plain(StatusCode::SERVICE_UNAVAILABLE, &why),
    }
}

fn plain(status: StatusCode, line: &str) -> Response<Full<Bytes>> {
    with_type(status, TEXT, format!("{line}\n"))
}

fn with_type(
    status: StatusCode,
    kind: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    let fixed: [(HeaderName, &'static str); 5] = [
        (header::CONTENT_TYPE, kind),
        (header::CACHE_CONTROL, "no-store"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

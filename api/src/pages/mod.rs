//! Pages that a person can read in a browser, and a program as JSON or Markdown.
//!
//! The templates and the stylesheet are in `api/templates/pages`. The pages need no script and
//! nothing from another host; askama escapes every value, and [`Prose`] escapes before it marks.

mod home;
mod negotiate;
mod prose;

pub use home::home;
pub use negotiate::Form;
pub use prose::Prose;

use askama::Template;
use aws_lc_rs::digest::{SHA256, digest};
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::fmt::Write;

/// The content policy of the pages: one stylesheet, from this host.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const STYLE: &str = include_str!("../../templates/pages/style.css");

/// Answers with the representation that the client prefers; `offers` begins with the one for a
/// client that has no preference.
pub fn answer(
    headers: &HeaderMap,
    offers: [Form; 3],
    render: impl FnOnce(Form) -> String,
) -> Response {
    let form = negotiate::choose(headers, offers);
    let mut response = tagged(headers, form.content_type(), render(form));
    let answered = response.headers_mut();
    answered.append(header::VARY, HeaderValue::from_static("accept"));
    answered.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// `GET /style.css`.
pub async fn style(headers: HeaderMap) -> Response {
    let mut response = tagged(&headers, "text/css; charset=utf-8", STYLE.to_owned());
    let cache = HeaderValue::from_static("public, no-cache");
    response.headers_mut().insert(header::CACHE_CONTROL, cache);
    response
}

/// Renders a template. Writing to a string does not fail.
pub fn html(page: &impl Template) -> String {
    page.render().unwrap_or_default()
}

/// JSON, indented: a person may read it in a terminal.
pub fn json(value: &serde_json::Value) -> String {
    format!("{value:#}\n")
}

/// The body with its `ETag`, or 304 to a client that has it.
fn tagged(headers: &HeaderMap, content_type: &'static str, body: String) -> Response {
    let tag = tag(&body);
    let kept = headers.get_all(header::IF_NONE_MATCH).iter();
    let kept = kept.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let mut kept = kept.map(|kept| kept.trim().trim_start_matches("W/"));
    let mut response = if kept.any(|kept| kept == "*" || kept == tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(header::CONTENT_TYPE, content_type)], body).into_response()
    };
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// The first 64 bits of the digest, quoted.
fn tag(body: &str) -> String {
    let digest = digest(&SHA256, body.as_bytes());
    let mut tag = String::from("\"");
    for byte in &digest.as_ref()[..8] {
        let _ = write!(tag, "{byte:02x}");
    }
    tag + "\""
}

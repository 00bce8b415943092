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
    body::Bytes,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use std::{fmt::Write, sync::LazyLock};

/// The content policy of the pages: one stylesheet, from this host.
const POLICY: &str = "default-src 'none'; style-src 'self'; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

const STYLE: &str = include_str!("../../templates/pages/style.css");

/// Answers with the representation that the client prefers; `offers` begins with the one for a
/// client that has no preference.
pub fn answer<T: Into<Text>>(
    headers: &HeaderMap,
    offers: [Form; 3],
    render: impl FnOnce(Form) -> T,
) -> Response {
    let form = negotiate::choose(headers, offers);
    let mut response = render(form).into().answer(headers, form.content_type());
    let answered = response.headers_mut();
    answered.append(header::VARY, HeaderValue::from_static("accept"));
    answered.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    response
}

/// `GET /style.css`.
pub async fn style(headers: HeaderMap) -> Response {
    static TEXT: LazyLock<Text> = LazyLock::new(|| STYLE.to_owned().into());
    let mut response = TEXT.clone().answer(&headers, "text/css; charset=utf-8");
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

/// A text with its `ETag`. Clones share it, so that one that never changes is made only once.
#[derive(Clone)]
pub struct Text {
    body: Bytes,
    tag: Option<HeaderValue>,
}

impl From<String> for Text {
    fn from(text: String) -> Self {
        let tag = HeaderValue::from_str(&tag(&text)).ok();
        Self { body: text.into(), tag }
    }
}

impl Text {
    /// The answer with the text, or 304 to a client that has it.
    pub fn answer(self, headers: &HeaderMap, content_type: &'static str) -> Response {
        let kept = headers.get_all(header::IF_NONE_MATCH).iter();
        let kept = kept.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
        let mut kept = kept.map(|kept| kept.trim().trim_start_matches("W/"));
        let is_kept = |kept: &str| kept == "*" || self.tag.as_ref().is_some_and(|tag| tag == kept);
        let mut response = if kept.any(is_kept) {
            StatusCode::NOT_MODIFIED.into_response()
        } else {
            ([(header::CONTENT_TYPE, content_type)], self.body).into_response()
        };
        if let Some(tag) = self.tag {
            response.headers_mut().insert(header::ETAG, tag);
        }
        response
    }
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

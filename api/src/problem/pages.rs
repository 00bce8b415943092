//! The page of each problem: what `type` leads to.

use super::{Kind, Problem, example};
use axum::{extract::Path, response::Html};
use std::fmt::Write;

/// `GET /problems`: all of them.
pub async fn index() -> Html<String> {
    let mut list = String::new();
    for kind in Kind::ALL {
        let (name, title, status) = (kind.name(), kind.title(), kind.status().as_u16());
        let _ = writeln!(
            list,
            "<li><a href=\"/problems/{name}\"><code>{name}</code></a> ({status}): {title}</li>"
        );
    }
    Html(document("Problems", &format!("<ul>\n{list}</ul>")))
}

/// `GET /problems/{name}`: what this problem means and what to do about it.
///
/// # Errors
/// `not-found` for a name that is no problem's.
pub async fn page(Path(name): Path<String>) -> Result<Html<String>, Problem> {
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
    kind.map(|kind| Html(html(*kind))).ok_or_else(|| Problem::not_found("problem"))
}

fn html(kind: Kind) -> String {
    let (name, title, status) = (kind.name(), kind.title(), kind.status());
    let text = paragraphs(kind.text());
    let example = serde_json::to_string_pretty(&example(kind, "/api/v1/...")).unwrap_or_default();
    let example = escaped(&example);
    let body = format!(
        "<p><code>/problems/{name}</code>, HTTP status {status}</p>\n{text}\n\
         <p>The document is <code>application/problem+json</code> (RFC 9457), such as:</p>\n\
         <pre>{example}</pre>\n<p><a href=\"/problems\">All problems</a></p>"
    );
    document(title, &body)
}

fn document(title: &str, body: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n\
         <head><meta charset=\"utf-8\"><title>{title}</title></head>\n\
         <body><h1>{title}</h1>\n{body}</body></html>\n"
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The text with what stands between back-ticks as code.
fn paragraphs(text: &str) -> String {
    let mut html = String::from("<p>");
    for (index, part) in escaped(text).split('`').enumerate() {
        match index % 2 {
            1 => html.extend(["<code>", part, "</code>"]),
            _ => html.push_str(part),
        }
    }
    html + "</p>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_is_well_formed() {
        for kind in Kind::ALL {
            let html = html(*kind);
            assert_eq!(html.matches("<code>").count(), html.matches("</code>").count());
            let text = html.split("<pre>").next().unwrap();
            assert!(text.contains(kind.title()) && !text.contains('`'));
            assert!(html.contains(&format!("/problems/{}\"", kind.name())), "{html}");
        }
    }
}

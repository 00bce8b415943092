//! The page of each problem: what `type` leads to.

use super::{Kind, Problem};
use axum::{extract::Path, response::Html};

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
    format!(
        "<!doctype html>\n<html lang=\"en\">\n\
         <head><meta charset=\"utf-8\"><title>{name}</title></head>\n<body><h1>{title}</h1>\n\
         <p><code>/problems/{name}</code>, HTTP status {status}</p>\n{text}\n\
         <p>The document is <code>application/problem+json</code> (RFC 9457).</p></body></html>\n"
    )
}

/// The text with what stands between back-ticks as code.
fn paragraphs(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    let mut html = String::from("<p>");
    for (index, part) in escaped.split('`').enumerate() {
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
            assert!(html.contains(kind.title()) && !html.contains('`'));
        }
    }
}

//! The page of each kind of problem, which its `type` leads to, and the list of all.

use super::{Kind, Problem, example};
use crate::pages::{Form, Prose, answer, html, json};
use askama::Template;
use axum::{
    extract::Path,
    http::{HeaderMap, StatusCode},
    response::Response,
};
use serde_json::{Value, json};
use std::fmt::Write;

/// A client that asks for nothing in particular has followed the `type` of a problem: it gets the
/// page.
const OFFERS: [Form; 3] = [Form::Html, Form::Json, Form::Markdown];

#[derive(Template)]
#[template(path = "pages/problems.html")]
struct Index {
    kinds: &'static [Kind],
}

#[derive(Template)]
#[template(path = "pages/problem.html")]
struct Page<'a> {
    name: &'a str,
    status: StatusCode,
    title: &'a str,
    meaning: Prose<'a>,
    action: Prose<'a>,
    example: &'a str,
}

/// `GET /problems`: all of them.
pub async fn index(headers: HeaderMap) -> Response {
    answer(&headers, OFFERS, |form| match form {
        Form::Html => html(&Index { kinds: Kind::ALL }),
        Form::Json => {
            let items: Vec<Value> = Kind::ALL.iter().map(|kind| described(*kind)).collect();
            json(&json!({ "items": items }))
        }
        Form::Markdown => index_as_markdown(),
    })
}

/// `GET /problems/{name}`: what this problem means and what to do about it.
///
/// # Errors
/// `not-found` for an unknown name.
pub async fn page(Path(name): Path<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let kind = Kind::ALL.iter().find(|kind| kind.name() == name);
    let kind = *kind.ok_or_else(|| Problem::not_found("problem"))?;
    Ok(answer(&headers, OFFERS, |form| match form {
        Form::Html => as_html(kind),
        Form::Json => {
            let mut described = described(kind);
            described["example"] = sample(kind);
            json(&described)
        }
        Form::Markdown => as_markdown(kind),
    }))
}

fn sample(kind: Kind) -> Value {
    example(kind, "/api/v1/...")
}

fn described(kind: Kind) -> Value {
    json!({
        "type": format!("/problems/{}", kind.name()),
        "title": kind.title(),
        "status": kind.status().as_u16(),
        "meaning": kind.meaning(),
        "action": kind.action(),
    })
}

fn as_html(kind: Kind) -> String {
    let example = format!("{:#}", sample(kind));
    html(&Page {
        name: kind.name(),
        status: kind.status(),
        title: kind.title(),
        meaning: Prose(kind.meaning()),
        action: Prose(kind.action()),
        example: &example,
    })
}

fn index_as_markdown() -> String {
    let mut text = "# Problems\n\n| status | title | type |\n|---|---|---|\n".to_owned();
    for kind in Kind::ALL {
        let (name, title, status) = (kind.name(), kind.title(), kind.status().as_u16());
        let _ = writeln!(text, "| {status} | {title} | [`{name}`](/problems/{name}) |");
    }
    text
}

fn as_markdown(kind: Kind) -> String {
    let (name, title, status) = (kind.name(), kind.title(), kind.status());
    let (meaning, action, example) = (kind.meaning(), kind.action(), sample(kind));
    format!(
        "# {title}\n\n`/problems/{name}`, HTTP status {status}\n\n{meaning}\n\n\
         ## What to do\n\n{action}\n\n## Example\n\n```json\n{example:#}\n```\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_page_says_what_the_problem_means() {
        for kind in Kind::ALL {
            let html = as_html(*kind);
            assert_eq!(html.matches("<code>").count(), html.matches("</code>").count());
            let text = html.split("<pre").next().unwrap();
            assert!(text.contains(&format!("<h1>{}</h1>", kind.title())) && !text.contains('`'));
            assert!(html.contains(&format!("<code>/problems/{}</code>", kind.name())), "{html}");
            let markdown = as_markdown(*kind);
            assert!(markdown.contains(kind.meaning()) && markdown.contains(kind.action()));
        }
    }
}

//! The table of features as a page, as JSON and as Markdown.

use super::row::{Row, Sample, rows};
use crate::pages::{Form, Prose, Text, answer, html, json};
use askama::Template;
use axum::{http::HeaderMap, response::Response};
use serde_json::{Value, json};
use std::{fmt::Write, sync::LazyLock};

const ABOUT: &str = "Every operation of the shop, with an example of a request, an answer and a \
    refusal. Tests check that every operation, event, table and test named here exists.";

const COLUMNS: &str = "\
| feature | operation | example request | example answer | example refusal | writes | reads | shown by |
|---|---|---|---|---|---|---|---|
";

#[derive(Template)]
#[template(path = "pages/features.html")]
struct Page {
    about: Prose<'static>,
    sections: Vec<Section>,
}

/// The features of one part of the interface.
struct Section {
    tag: String,
    rows: Vec<Row>,
}

impl Section {
    fn title(&self) -> String {
        let mut letters = self.tag.chars();
        let first = letters.next().map(|letter| letter.to_ascii_uppercase());
        first.into_iter().chain(letters).collect()
    }
}

/// Made once: the OpenAPI document takes milliseconds, and anybody may ask for the page.
static HTML: LazyLock<Text> =
    LazyLock::new(|| html(&Page { about: Prose(ABOUT), sections: sections() }).into());
static JSON: LazyLock<Text> = LazyLock::new(|| {
    let items: Vec<Value> = rows().iter().map(as_json).collect();
    json(&json!({ "items": items })).into()
});
static MARKDOWN: LazyLock<Text> = LazyLock::new(|| markdown().into());

/// `GET /docs/features`: the table. Programs that ask for nothing in particular get Markdown.
pub async fn serve(headers: HeaderMap) -> Response {
    let offers = [Form::Markdown, Form::Html, Form::Json];
    answer(&headers, offers, |form| match form {
        Form::Html => HTML.clone(),
        Form::Json => JSON.clone(),
        Form::Markdown => MARKDOWN.clone(),
    })
}

/// The rows by part of the interface, in the order in which the parts first appear.
fn sections() -> Vec<Section> {
    let mut sections: Vec<Section> = Vec::new();
    for row in rows() {
        match sections.iter_mut().find(|section| section.tag == row.tag) {
            Some(section) => section.rows.push(row),
            None => sections.push(Section { tag: row.tag.clone(), rows: vec![row] }),
        }
    }
    sections
}

fn as_json(row: &Row) -> Value {
    let Row { feature, tag, method, path, request, answer, refusal } = row;
    let sample = |sample: &Sample| {
        let status: Option<u16> = sample.status.parse().ok();
        json!({ "status": status, "body": sample.body })
    };
    json!({
        "feature": feature.name,
        "tag": tag,
        "operation": feature.operation,
        "method": method,
        "path": path,
        "writes": feature.writes,
        "reads": feature.reads,
        "test": feature.test,
        "request": request.as_ref().map(|request| &request.body),
        "answer": sample(answer),
        "refusal": refusal.as_ref().map(sample),
    })
}

/// The table, as Markdown.
pub fn markdown() -> String {
    let mut text =
        format!("# Features\n\n{ABOUT}\n`orderlog features` prints this table.\n\n{COLUMNS}");
    for Row { feature, method, path, request, answer, refusal, .. } in rows() {
        let cells = [
            feature.name.to_owned(),
            format!("`{method} {path}`"),
            request.as_ref().map(cell).unwrap_or_default(),
            cell(&answer),
            refusal.as_ref().map(cell).unwrap_or_default(),
            feature.writes.to_owned(),
            feature.reads.to_owned(),
            format!("`{}`", feature.test),
        ];
        let _ = writeln!(text, "| {} |", cells.map(|cell| cell.replace('|', "\\|")).join(" | "));
    }
    text
}

/// The status and the body as code, without what is missing.
fn cell(sample: &Sample) -> String {
    let body = sample.on_one_line();
    let code = if body.is_empty() { body } else { format!("`{body}`") };
    [&*sample.status, &*code].join(" ").trim().to_owned()
}

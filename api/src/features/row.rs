//! A feature with its examples from the OpenAPI document.

use super::{FEATURES, Feature};
use crate::openapi::{operations, resolve};
use serde_json::Value;

/// A row of the table.
pub struct Row {
    pub feature: &'static Feature,
    /// The part of the interface that it belongs to.
    pub tag: String,
    /// In capitals.
    pub method: String,
    pub path: String,
    /// A body, or a query string.
    pub request: Option<Sample>,
    pub answer: Sample,
    pub refusal: Option<Sample>,
}

/// An example of a request or an answer.
pub struct Sample {
    /// The HTTP status of an answer; empty for a request.
    pub status: String,
    /// A string stands for text that is not JSON; null for no body.
    pub body: Value,
}

impl Sample {
    /// The body, indented.
    pub fn indented(&self) -> String {
        self.body.as_str().map_or_else(|| format!("{:#}", self.body), str::to_owned)
    }

    /// The body on one line; empty without one.
    pub fn on_one_line(&self) -> String {
        match &self.body {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            body => body.to_string(),
        }
    }
}

/// All rows, in the order of [`FEATURES`].
pub fn rows() -> Vec<Row> {
    let document = crate::openapi::document();
    let row = |feature: &'static Feature| {
        let mut all = operations(&document);
        let (path, method, operation) =
            all.find(|(_, _, it)| it["operationId"] == feature.operation)?;
        Some(Row {
            feature,
            tag: operation["tags"][0].as_str().unwrap_or_default().to_owned(),
            method: method.to_uppercase(),
            path: path.to_owned(),
            request: request(&document, operation),
            answer: answer(operation),
            refusal: refusal(&document, operation, feature.refusal),
        })
    };
    FEATURES.iter().filter_map(row).collect()
}

fn request(document: &Value, operation: &Value) -> Option<Sample> {
    let content = operation["requestBody"]["content"].as_object();
    let body = match content.and_then(|content| content.values().next()) {
        Some(content) => content["example"].clone(),
        None => query(document, operation)?.into(),
    };
    Some(Sample { status: String::new(), body })
}

/// A query string of the operation's own parameters; `None` without any.
fn query(document: &Value, operation: &Value) -> Option<String> {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let own = parameters.map(|it| resolve(document, it)).filter(|it| it["in"] == "query");
    let pairs = own.filter_map(|it| {
        let example = it.get("example").or_else(|| it["schema"].get("default"))?;
        let example = example.get(0).unwrap_or(example);
        let text = example.as_str().map_or_else(|| example.to_string(), str::to_owned);
        Some((it["name"].as_str()?, text))
    });
    let pairs = pairs.filter(|(name, _)| *name != "cursor");
    let pairs: Vec<String> = pairs.map(|(name, text)| format!("{name}={text}")).collect();
    (!pairs.is_empty()).then(|| format!("?{}", pairs.join("&")))
}

fn answer(operation: &Value) -> Sample {
    let mut answers = operation["responses"].as_object().into_iter().flatten();
    let Some((status, answer)) = answers.find(|(status, _)| status.starts_with('2')) else {
        return Sample { status: String::new(), body: Value::Null };
    };
    let content = answer["content"].as_object().and_then(|content| content.values().next());
    let body = content.map(|content| content["example"].clone()).unwrap_or_default();
    Sample { status: status.clone(), body }
}

/// The example of a problem, without the members that are the same in every problem of its kind.
pub fn refusal(document: &Value, operation: &Value, name: &str) -> Option<Sample> {
    let answers = operation["responses"].as_object().into_iter().flatten();
    let mut examples = answers.filter_map(|(_, answer)| {
        let example = &answer["content"]["application/problem+json"]["examples"][name];
        Some(resolve(document, example)).filter(|example| !example.is_null())
    });
    let mut body = examples.next()?["value"].clone();
    let status = body["status"].to_string();
    if let Some(members) = body.as_object_mut() {
        members.retain(|name, _| name != "instance" && name != "title" && name != "status");
    }
    Some(Sample { status, body })
}

//! `GET /`: what the program is, and where everything is.

use super::{Form, Prose, answer, html, json};
use crate::App;
use askama::Template;
use axum::{
    extract::{Request, State},
    http::{Uri, header, uri::Authority},
    response::Response,
};
use serde_json::{Map, Value};
use std::{fmt::Write, sync::Arc};

const ABOUT: &str = "An event-sourced order backend for an online shop: customers, products and \
    stock, orders and payments, wishlists, search and sales reports. Every change is an event in \
    a log, and the read models that answer queries are built from it.";

/// A place on this host.
struct Link {
    /// In JSON.
    key: &'static str,
    path: &'static str,
    name: &'static str,
    about: &'static str,
}

/// Links that belong together.
struct Group {
    name: &'static str,
    links: &'static [Link],
}

const fn link(
    key: &'static str,
    path: &'static str,
    name: &'static str,
    about: &'static str,
) -> Link {
    Link { key, path, name, about }
}

const GROUPS: [Group; 3] = [
    Group {
        name: "Use the API",
        links: &[
            link("docs", "/docs/", "API documentation", "Read about every operation and try it."),
            link("features", "/docs/features", "Features", "What each operation writes and reads."),
            link("problems", "/problems", "Problems", "What each error means and what to do."),
        ],
    },
    Group {
        name: "Generate a client",
        links: &[
            link("openapi", "/openapi.json", "OpenAPI", "The HTTP interface, as OpenAPI 3.1."),
            link("asyncapi", "/asyncapi.json", "AsyncAPI", "The events, as AsyncAPI 3.0."),
        ],
    },
    Group {
        name: "Operate",
        links: &[
            link("health", "/healthz", "Health", "Whether the process is alive."),
            link("readiness", "/readyz", "Readiness", "Whether it takes commands and queries."),
            link("metrics", "/metrics", "Metrics", "In the text format of Prometheus."),
        ],
    },
];

#[derive(Template)]
#[template(path = "pages/home.html")]
struct Home<'a> {
    about: Prose<'a>,
    version: &'a str,
    /// Without it, the links still work.
    address: Option<&'a str>,
    groups: &'a [Group],
}

/// `GET /`. Programs that ask for nothing in particular get JSON.
pub async fn home(State(app): State<Arc<App>>, request: Request) -> Response {
    let is_secure = app.proxies.is_secure(request.extensions(), request.headers());
    let scheme = if is_secure { "https" } else { "http" };
    let address = host(&request).map(|host| format!("{scheme}://{host}"));
    let address = address.as_deref();
    answer(request.headers(), [Form::Json, Form::Html, Form::Markdown], |form| match form {
        Form::Html => html(&Home {
            about: Prose(ABOUT),
            version: env!("CARGO_PKG_VERSION"),
            address,
            groups: &GROUPS,
        }),
        Form::Json => json(&as_json(address)),
        Form::Markdown => as_markdown(address),
    })
}

/// The host that the client asked for; `None` for one that is not safe to repeat in a command line.
fn host(request: &Request) -> Option<&str> {
    let of_header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    let host = of_header.or_else(|| request.uri().authority().map(Authority::as_str))?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-:[]".contains(&byte);
    let is_host = !host.is_empty() && host.bytes().all(is_plain) && host.parse::<Uri>().is_ok();
    is_host.then_some(host)
}

fn as_json(address: Option<&str>) -> Value {
    let links = GROUPS.iter().flat_map(|group| group.links);
    let links = links.map(|link| (link.key.to_owned(), link.path.into()));
    let api = [("api".to_owned(), "/api/v1".into())].into_iter();
    let links: Map<String, Value> = api.chain(links).collect();
    serde_json::json!({
        "name": "orderlog",
        "version": env!("CARGO_PKG_VERSION"),
        "description": ABOUT,
        "address": address,
        "links": links,
    })
}

fn as_markdown(address: Option<&str>) -> String {
    let address = address.unwrap_or_default();
    let mut text = format!("# orderlog {}\n\n{ABOUT}\n", env!("CARGO_PKG_VERSION"));
    for group in &GROUPS {
        let _ = writeln!(text, "\n## {}\n", group.name);
        for Link { path, name, about, .. } in group.links {
            let _ = writeln!(text, "- [{name}]({address}{path}): {about}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    #[test]
    fn a_host_is_repeated_only_if_it_can_be_pasted() {
        let of = |host: &str| {
            let request = Request::builder().header(header::HOST, host).body(Body::empty());
            super::host(&request.unwrap()).map(str::to_owned)
        };
        for good in ["127.0.0.1:8080", "shop.example", "[::1]:80"] {
            assert_eq!(of(good).as_deref(), Some(good));
        }
        for bad in ["", "a b", "shop.example/$(ls)", "a';ls", "<b>", "me@there"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}

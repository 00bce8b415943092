//! The pages of the program, as browsers and other clients see them.

use crate::{
    app::{TestApp, ground},
    client::Answer,
};
use orderlog::{config::LogChoice, problem::Kind};
use reqwest::Method;

const CHROMIUM: &str = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,\
    image/webp,image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7";

const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const MARKDOWN: &str = "text/markdown; charset=utf-8";

/// Each page, and what a client without a preference gets.
const PAGES: [(&str, &str); 4] = [
    ("/", JSON),
    ("/docs/features", MARKDOWN),
    ("/problems", HTML),
    ("/problems/insufficient-stock", HTML),
];

async fn get(app: &TestApp, path: &str, accept: &str) -> Answer {
    let answer = app.staff.anonymous().get(&format!("/{path}")).header("accept", accept);
    answer.expect(200).await
}

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    answer.header(name).unwrap_or_default()
}

fn text(answer: &Answer) -> &str {
    answer.body.as_str().unwrap_or_default()
}

/// One app for all: none of them writes anything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_for_browsers_and_for_programs() {
    let app = TestApp::start(ground(LogChoice::Embedded).await).await;
    each_client_gets_the_form_it_prefers(&app).await;
    pages_are_strict_and_need_no_script(&app).await;
    every_link_leads_somewhere(&app).await;
    a_client_with_the_current_version_gets_304(&app).await;
    head_answers_and_other_methods_do_not(&app).await;
    the_forms_say_the_same(&app).await;
    app.finish().await;
}

async fn each_client_gets_the_form_it_prefers(app: &TestApp) {
    for (path, usual) in PAGES {
        for (accept, form) in [
            (CHROMIUM, HTML),
            ("text/html", HTML),
            ("application/json", JSON),
            ("text/markdown", MARKDOWN),
            ("text/html;q=0.2, application/json;q=0.3", JSON),
            ("text/html;q=0, text/markdown;q=0.1", MARKDOWN),
            ("*/*", usual),
            ("image/png", usual),
        ] {
            let answer = get(app, path, accept).await;
            assert_eq!(header(&answer, "content-type"), form, "{path} for {accept}");
            let vary = answer.headers.get_all("vary").iter();
            let vary: Vec<&str> = vary.map(|value| value.to_str().unwrap()).collect();
            assert!(vary.contains(&"accept"), "{path}: {vary:?}");
        }
    }
}

async fn pages_are_strict_and_need_no_script(app: &TestApp) {
    for (path, _) in PAGES {
        let page = get(app, path, CHROMIUM).await;
        let policy = header(&page, "content-security-policy");
        assert!(policy.starts_with("default-src 'none'; style-src 'self';"), "{path}: {policy}");
        assert!(!policy.contains("unsafe") && !policy.contains("script"), "{path}: {policy}");
        let html = text(&page);
        assert!(html.starts_with("<!doctype html>\n<html lang=\"en\">"), "{path}");
        assert_eq!(html.matches("<h1>").count(), 1, "{path}");
        let title = html.split("<title>").nth(1).and_then(|it| it.split('<').next());
        assert!(title.is_some_and(|title| title.contains("orderlog")), "{path}: {title:?}");
        for foreign in ["<script", " style=", " onclick", "src=", "href=\"http", "href=\"//"] {
            assert!(!html.contains(foreign), "{path} has {foreign}");
        }
    }
    let style = get(app, "/style.css", "text/css,*/*;q=0.1").await;
    assert_eq!(header(&style, "content-type"), "text/css; charset=utf-8");
    assert!(!text(&style).contains("url(") && !text(&style).contains("@import"));
}

async fn every_link_leads_somewhere(app: &TestApp) {
    for (path, _) in PAGES {
        let page = get(app, path, CHROMIUM).await;
        for link in text(&page).split("href=\"").skip(1) {
            let target = link.split('"').next().unwrap();
            if let Some(anchor) = target.strip_prefix('#') {
                assert!(text(&page).contains(&format!("id=\"{anchor}\"")), "{path}: {target}");
            } else {
                get(app, target, CHROMIUM).await;
            }
        }
    }
}

async fn a_client_with_the_current_version_gets_304(app: &TestApp) {
    for path in PAGES.map(|(path, _)| path).into_iter().chain(["/style.css"]) {
        let first = get(app, path, CHROMIUM).await;
        let tag = header(&first, "etag").to_owned();
        assert!(tag.starts_with('"') && tag.len() > 10, "{path}: {tag}");
        for held in [tag.clone(), format!("\"other\", W/{tag}"), "*".to_owned()] {
            let again = app.staff.anonymous().get(&format!("/{path}")).header("accept", CHROMIUM);
            let again = again.header("if-none-match", held).expect(304).await;
            assert_eq!((header(&again, "etag"), text(&again)), (&*tag, ""), "{path}");
        }
        if path != "/style.css" {
            let other = app.staff.anonymous().get(&format!("/{path}"));
            let other = other.header("accept", JSON).header("if-none-match", &tag);
            assert_ne!(
                header(&other.expect(200).await, "etag"),
                tag,
                "{path}: one tag for two forms"
            );
        }
    }
}

async fn head_answers_and_other_methods_do_not(app: &TestApp) {
    for (path, _) in PAGES {
        let path = format!("/{path}");
        let head = app.staff.anonymous().call(Method::HEAD, &path).header("accept", CHROMIUM);
        let head = head.expect(200).await;
        assert_eq!((header(&head, "content-type"), text(&head)), (HTML, ""), "{path}");
        let post = app.staff.anonymous().call(Method::POST, &path).expect(405).await;
        assert_eq!((post.problem(), header(&post, "allow")), ("method-not-allowed", "GET,HEAD"));
    }
    let unknown = app.staff.anonymous().get("//problems/none").header("accept", CHROMIUM);
    assert_eq!(unknown.expect(404).await.problem(), "not-found");
}

async fn the_forms_say_the_same(app: &TestApp) {
    let home = get(app, "/", JSON).await.body;
    assert_eq!(home["address"], format!("http://{}", app.running().address()));
    assert!(text(&get(app, "/", CHROMIUM).await).contains(home["address"].as_str().unwrap()));
    for link in home["links"].as_object().unwrap().values() {
        let link = link.as_str().unwrap();
        assert!(link == "/api/v1" || text(&get(app, "/", CHROMIUM).await).contains(link), "{link}");
    }
    let problems = get(app, "/problems", JSON).await.body;
    assert_eq!(problems["items"].as_array().unwrap().len(), Kind::ALL.len());
    for kind in Kind::ALL {
        let path = format!("/problems/{}", kind.name());
        let problem = get(app, &path, JSON).await.body;
        assert_eq!((&problem["type"], &problem["title"]), (&path.into(), &kind.title().into()));
        assert_eq!(problem["example"]["status"], kind.status().as_u16());
    }
    let features = get(app, "/docs/features", JSON).await.body;
    let html = get(app, "/docs/features", CHROMIUM).await;
    let markdown = get(app, "/docs/features", MARKDOWN).await;
    for feature in features["items"].as_array().unwrap() {
        let path = feature["path"].as_str().unwrap();
        let test = feature["test"].as_str().unwrap();
        for form in [&html, &markdown] {
            assert!(text(form).contains(path) && text(form).contains(test), "{path} {test}");
        }
    }
}

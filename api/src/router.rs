//! Every route, and the layers around them.

use crate::{
    App, admin, asyncapi,
    auth::{Admitted, Caller, Until},
    causality::{LOG_POSITION, MIN_LOG_POSITION, PREFER, PREFERENCE_APPLIED, set_header},
    client, customers,
    extract::{check_message, single},
    features, health,
    idempotency::{IDEMPOTENCY_KEY, IDEMPOTENCY_REPLAYED},
    openapi,
    orders::{self, listen::LAST_EVENT_ID},
    pages, payments,
    problem::{self, Kind, Problem},
    products,
    rate_limit::{self, Balance},
    reports,
    server::Occupied,
    trace::{self, TRACEPARENT},
    wishlist,
};
use axum::{
    Router,
    extract::{MatchedPath, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, header, request::Parts},
    middleware::{Next, from_fn, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use std::{net::IpAddr, sync::Arc, time::Duration};
use tower_http::{catch_panic::CatchPanicLayer, cors::CorsLayer};
use utoipa_axum::{router::OpenApiRouter, routes};
use utoipa_swagger_ui::{Config, SwaggerUi};

const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
const CROSS_ORIGIN_OPENER_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-opener-policy");
const CROSS_ORIGIN_RESOURCE_POLICY: HeaderName =
    HeaderName::from_static("cross-origin-resource-policy");

/// The limits of the caller, and what is left of them (draft-ietf-httpapi-ratelimit-headers).
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");

/// How long a browser may remember the answer to a preflight request.
const PREFLIGHT_AGE: Duration = Duration::from_mins(10);

/// The routes that the OpenAPI document describes.
pub(crate) fn described_routes() -> OpenApiRouter<Arc<App>> {
    shop_routes().merge(operations_routes())
}

fn shop_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(customers::register::register, customers::find::find))
        .routes(routes!(customers::lookup::look_up))
        .routes(routes!(customers::get::get, customers::change::change))
        .routes(routes!(customers::erase::erase))
        .routes(routes!(orders::list::of_customer))
        .routes(routes!(products::add::add, products::list::list))
        .routes(routes!(
            products::get::get,
            products::change::change,
            products::discontinue::discontinue
        ))
        .routes(routes!(products::change_stock::change_stock))
        .routes(routes!(products::search::search))
        .routes(routes!(wishlist::add::add, wishlist::list::list))
        .routes(routes!(wishlist::remove::remove))
        .routes(routes!(reports::sales::sales))
        .routes(routes!(orders::place::place, orders::list::list))
        .routes(routes!(orders::get::get))
        .routes(routes!(orders::cancel::cancel))
        .routes(routes!(orders::change_status::change_status))
        .routes(routes!(orders::history::history))
        .routes(routes!(orders::listen::listen))
        .routes(routes!(orders::listen::ticket))
        .routes(routes!(payments::webhook::webhook))
}

/// The routes for operators, which can have an address of their own.
fn operations_routes() -> OpenApiRouter<Arc<App>> {
    OpenApiRouter::default()
        .routes(routes!(admin::projections::list))
        .routes(routes!(admin::projections::rebuild))
        .routes(routes!(admin::projections::rollback))
        .routes(routes!(admin::projections::accept))
        .routes(routes!(admin::projections::cancel))
        .routes(routes!(admin::projections::pause))
        .routes(routes!(admin::projections::resume))
        .routes(routes!(admin::projections::drop_old))
        .routes(routes!(admin::parked::list))
        .routes(routes!(admin::parked::retry))
        .routes(routes!(admin::streams::events))
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

/// The whole interface.
pub fn routes(app: Arc<App>) -> Router {
    surround(with_documents(described_routes()), app)
}

/// The interface without what is for operators.
pub fn shop(app: Arc<App>) -> Router {
    surround(with_documents(shop_routes()), app)
}

/// Health, metrics and administration alone.
pub fn operations(app: Arc<App>) -> Router {
    let (described, _) = operations_routes().split_for_parts();
    surround(described, app)
}

/// The routes, and the documents that describe the whole interface.
fn with_documents(routes: OpenApiRouter<Arc<App>>) -> Router<Arc<App>> {
    let (described, _) = routes.split_for_parts();
    let docs = SwaggerUi::new("/docs").config(Config::from("/openapi.json"));
    described
        .merge(docs)
        .route("/", get(pages::home))
        .route("/style.css", get(pages::style))
        .route("/openapi.json", get(openapi::serve))
        .route("/asyncapi.json", get(asyncapi::serve))
        .route("/docs/features", get(features::serve))
        .route("/problems", get(problem::index))
        .route("/problems/{name}", get(problem::page))
}

/// The routes with the layers around them. The innermost layer comes first.
fn surround(routes: Router<Arc<App>>, app: Arc<App>) -> Router {
    let cors = cors(&app.settings.cors_allowed_origins);
    routes
        .fallback(async || Problem::new(Kind::NotFound, "the path does not exist"))
        .layer(from_fn_with_state(Arc::clone(&app), admit))
        .layer(from_fn(coherent))
        .layer(from_fn_with_state(Arc::clone(&app), bound))
        .layer(CatchPanicLayer::custom(problem::panicked))
        .layer(from_fn(problem::render))
        .layer(from_fn_with_state(Arc::clone(&app), count))
        .layer(from_fn(measure))
        .layer(from_fn_with_state(Arc::clone(&app), protect))
        .layer(cors)
        .layer(from_fn_with_state(Arc::clone(&app), trace::follow))
        .with_state(app)
}

/// Refuses a request whose message two programs could read differently.
async fn coherent(request: Request, next: Next) -> Response {
    match check_message(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

/// Limits the requests from each address: how many tokens they take, and how many are under way
/// until their answers are sent. Tells what is left of the caller's limits.
async fn count(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let Some(address) = app.proxies.client(request.extensions(), request.headers()) else {
        return next.run(request).await;
    };
    let address = client::counted(address);
    let (parts, body) = request.into_parts();
    let balance = app.addresses.take(&address, cost(&parts), app.environment.monotonic());
    let place = balance.map_or(Ok(()), |balance| balance.allow());
    let mut response = match place.and_then(|()| app.under_way.begin(address)) {
        Ok(place) => {
            let mut response = next.run(Request::from_parts(parts, body)).await;
            response.extensions_mut().insert(Occupied(Arc::new(place)));
            response
        }
        Err(problem) => problem.answer(parts.uri.path()),
    };
    let of_caller = response.extensions_mut().remove::<Balance>();
    let balances: Vec<Balance> = balance.into_iter().chain(of_caller).collect();
    if !balances.is_empty() {
        let list =
            |item: fn(&Balance) -> String| balances.iter().map(item).collect::<Vec<_>>().join(", ");
        set_header(&mut response, RATE_LIMIT_POLICY, &list(Balance::policy));
        set_header(&mut response, RATE_LIMIT, &list(Balance::state));
    }
    response
}

/// The tokens that a request takes from the buckets of its address and its caller.
fn cost(request: &Parts) -> u32 {
    let route = request.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str);
    rate_limit::cost(&request.method, route)
}

/// Checks the caller's token and rate limit. An invalid token is refused on every route under
/// `/api/`, also where none is needed.
async fn admit(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    if !request.uri().path().starts_with("/api/") {
        return next.run(request).await;
    }
    let address = app.proxies.client(request.extensions(), request.headers());
    let address = address.map(client::counted);
    let (mut parts, body) = request.into_parts();
    let (admitted, balance) = admitted(&app, address, &parts).await;
    let allowed = balance.map_or(Ok(()), |balance| balance.allow());
    let mut response = match allowed.and(admitted) {
        Ok((caller, until)) => {
            parts.extensions.insert(caller.clone());
            parts.extensions.insert(until);
            let mut response = next.run(Request::from_parts(parts, body)).await;
            response.extensions_mut().insert(caller);
            response
        }
        Err(problem) => problem.into_response(),
    };
    if let Some(balance) = balance {
        response.extensions_mut().insert(balance);
    }
    response
}

/// The caller and when their token expires, and what is left of the caller's limit.
async fn admitted(
    app: &App,
    address: Option<IpAddr>,
    request: &Parts,
) -> (Result<(Caller, Until), Problem>, Option<Balance>) {
    let admitted = match bearer(&request.headers) {
        Ok(None) => Ok(None),
        Ok(Some(token)) => app.authenticator.admit(token, app.environment.now()).await.map(Some),
        Err(problem) => Err(problem),
    };
    let now = app.environment.monotonic();
    let Ok(Some(Admitted { principal, until })) = admitted else {
        // A caller with a bad token counts by address.
        let balance = app.limiter.take(&address, cost(request), now);
        return (admitted.map(|_| (Caller(None), Until(None))), balance);
    };
    let caller = (&*principal.issuer, &*principal.subject);
    let balance = app.limiter.take(&caller, cost(request), now);
    (Ok((Caller(Some(principal)), Until(Some(until)))), balance)
}

/// The token of an `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Problem> {
    let refused = || {
        let detail = "Authorization must be `Bearer <token>`, and be given once";
        Problem::new(Kind::Unauthenticated, detail)
    };
    let value = single(headers, &header::AUTHORIZATION).map_err(|_| refused())?;
    let Some(value) = value else { return Ok(None) };
    let token = value.to_str().ok().and_then(|text| text.trim().split_once(' '));
    let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| Some(token.trim())).ok_or_else(refused)
}

/// Answers a request that takes too long. The command continues in the background.
async fn bound(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let answered = tokio::time::timeout(app.settings.request_timeout, next.run(request)).await;
    answered.unwrap_or_else(|_| {
        let kind = if reads { Kind::Unavailable } else { Kind::OutcomeUnknown };
        Problem::new(kind, "the request took too long").retry_after(1).into_response()
    })
}

/// Counts requests and measures their duration, by route.
async fn measure(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>();
    let route = route.map_or_else(|| "none".to_owned(), |path| path.as_str().to_owned());
    let method = trace::method(&request);
    let began = tokio::time::Instant::now();
    let response = next.run(request).await;
    let status = response.status().as_str().to_owned();
    let labels = [("method", method.to_owned()), ("route", route), ("status", status)];
    metrics::counter!("orderlog_http_requests_total", &labels).increment(1);
    metrics::histogram!("orderlog_http_request_seconds", &labels).record(began.elapsed());
    response
}

/// Adds the headers that restrict what a browser does with an answer.
async fn protect(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let path = request.uri().path();
    let is_docs = path == "/docs" || path.starts_with("/docs/");
    let secure = app.proxies.is_secure(request.extensions(), request.headers());
    let mut response = next.run(request).await;
    let policy = if is_docs {
        // Swagger UI styles itself and shows icons from data URLs.
        "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    } else {
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    };
    set_header(&mut response, header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    set_header(&mut response, header::X_FRAME_OPTIONS, "DENY");
    set_header(&mut response, header::REFERRER_POLICY, "no-referrer");
    set_header(&mut response, PERMISSIONS_POLICY, "camera=(), geolocation=(), microphone=()");
    set_header(&mut response, CROSS_ORIGIN_OPENER_POLICY, "same-origin");
    // Has no effect on CORS requests.
    set_header(&mut response, CROSS_ORIGIN_RESOURCE_POLICY, "same-origin");
    if secure {
        set_header(&mut response, header::STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    let headers = response.headers_mut();
    // A page has a policy of its own.
    let own_policy = headers.entry(header::CONTENT_SECURITY_POLICY);
    own_policy.or_insert(HeaderValue::from_static(policy));
    let cache = headers.entry(header::CACHE_CONTROL);
    cache.or_insert(HeaderValue::from_static("private, no-cache"));
    response
}

/// Allows requests from browsers on the origins that the settings name.
fn cors(origins: &[String]) -> CorsLayer {
    let layer = CorsLayer::new()
        .allow_methods([Method::GET, Method::POST, Method::PATCH, Method::DELETE])
        .allow_headers([
            header::AUTHORIZATION,
            header::CONTENT_TYPE,
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            IDEMPOTENCY_KEY,
            LAST_EVENT_ID,
            MIN_LOG_POSITION,
            PREFER,
            TRACEPARENT,
        ])
        .max_age(PREFLIGHT_AGE)
        .expose_headers([
            header::ETAG,
            header::LOCATION,
            header::RETRY_AFTER,
            IDEMPOTENCY_REPLAYED,
            LOG_POSITION,
            PREFERENCE_APPLIED,
            RATE_LIMIT,
            RATE_LIMIT_POLICY,
            TRACEPARENT,
        ]);
    if origins.iter().any(|origin| origin == "*") {
        return layer.allow_origin(tower_http::cors::Any);
    }
    let origins: Vec<_> = origins.iter().filter_map(|origin| origin.parse().ok()).collect();
    layer.allow_origin(tower_http::cors::AllowOrigin::list(origins))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_bearer_header_holds_a_token() {
        let of = |value: &'static str| {
            let headers = [(header::AUTHORIZATION, HeaderValue::from_static(value))];
            bearer(&HeaderMap::from_iter(headers)).map(|token| token.map(str::to_owned))
        };
        assert_eq!(of("Bearer a.b.c").unwrap().as_deref(), Some("a.b.c"));
        assert_eq!(of("bearer  a.b.c ").unwrap().as_deref(), Some("a.b.c"));
        assert_eq!(bearer(&HeaderMap::new()).unwrap(), None);
        let mut twice = HeaderMap::new();
        for token in ["Bearer a", "Bearer b"] {
            twice.append(header::AUTHORIZATION, HeaderValue::from_static(token));
        }
        assert_eq!(bearer(&twice).unwrap_err().kind(), Kind::Unauthenticated);
        for value in ["a.b.c", "Basic abc", "Bearer", ""] {
            assert_eq!(of(value).unwrap_err().kind(), Kind::Unauthenticated, "{value}");
        }
    }
}

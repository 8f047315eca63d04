//! Routes requests, and gives every answer its form.

mod classify;
mod embed;
mod embed_info;
mod hidden_states;
mod immich;
mod inputs;
mod monitoring;
mod ollama;
mod openai;
mod page;
mod path_parameters;
mod search;
mod similarity;
mod webui;

use std::any::Any;
use std::time::Instant;

use axum::Router;
use axum::extract::{DefaultBodyLimit, MatchedPath, Request, State as Extract};
use axum::http::uri::PathAndQuery;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::cors::{AllowHeaders, AllowOrigin, Any as AnyMethod, CorsLayer};
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::set_header::SetResponseHeaderLayer;
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;
use uuid::Uuid;

use crate::access;
use crate::problem::Problem;
use crate::state::{Shared, shown};

/// Paths that are asked again and again, which are logged only in detail.
const PROBES: [&str; 5] = ["/health", "/ready", "/ping", "/metrics", "/sdapi/v1/progress"];

/// Describes the interface.
#[derive(OpenApi)]
#[openapi(info(
    title = "altdiffusion",
    description = "Images and embeddings, in the interfaces of OpenAI, stable-diffusion-webui and others."
))]
struct Description;

/// Adds the ways to give a key, and writes paths as OpenAPI has them.
fn completed(mut description: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    let basic = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Basic).build());
    let components = description.components.get_or_insert_default();
    components.add_security_scheme("key", bearer);
    components.add_security_scheme("password", basic);
    // Without a key on the server, none is needed.
    let needed = [SecurityRequirement::default(), requirement("key"), requirement("password")];
    description.security = Some(needed.into());
    let paths = std::mem::take(&mut description.paths.paths);
    description.paths.paths = paths.into_iter().map(|(path, item)| (path.replace("{*", "{"), item)).collect();
    description
}

fn requirement(scheme: &str) -> SecurityRequirement {
    SecurityRequirement::new(scheme, std::iter::empty::<String>())
}

/// All routes.
fn routes() -> OpenApiRouter<Shared> {
    OpenApiRouter::with_openapi(Description::openapi())
        .routes(routes!(openai::embeddings::embeddings))
        .routes(routes!(openai::images::generations))
        .routes(routes!(openai::edits::edits))
        .routes(routes!(openai::models::models))
        .routes(routes!(openai::models::model))
        .routes(routes!(embed::embed))
        .routes(routes!(embed_info::info))
        .routes(routes!(ollama::api_embed))
        .routes(routes!(ollama::api_tags))
        .routes(routes!(ollama::api_version))
        .routes(routes!(similarity::similarity))
        .routes(routes!(classify::classify))
        .routes(routes!(hidden_states::hidden_states))
        .routes(routes!(search::indexes))
        .routes(routes!(search::search))
        .routes(routes!(search::image))
        .routes(routes!(immich::ping))
        .routes(routes!(immich::predict))
        .routes(routes!(monitoring::health))
        .routes(routes!(monitoring::ready))
        .routes(routes!(monitoring::metrics))
        .merge(webui::routes())
}

/// The router of a server.
pub(crate) fn router(state: &Shared) -> Router {
    let id = HeaderName::from_static("x-request-id");
    let (router, description) = routes().split_for_parts();
    let document = monitoring::OpenApiDocument(completed(description).to_json().unwrap_or_default());
    let router = router
        .merge(monitoring::openapi_route(document))
        .merge(page::routes())
        .fallback(|| async { Problem::not_found("no such path; /openapi.json lists them") })
        .method_not_allowed_fallback(|| async {
            Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take this method")
        });
    let origins = &state.options.allowed_origins;
    let origins = match origins.iter().any(|origin| origin == "*") {
        true => AllowOrigin::any(),
        false => AllowOrigin::list(origins.iter().filter_map(|origin| origin.parse().ok())),
    };
    let cors = CorsLayer::new()
        .allow_origin(origins)
        // By name: browsers do not take `*` for Authorization.
        .allow_headers(AllowHeaders::mirror_request())
        .allow_methods(AnyMethod)
        .expose_headers([header::RETRY_AFTER, id.clone()]);
    let no_sniffing = SetResponseHeaderLayer::if_not_present(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    // As one layer: each layer of a router is allocated anew for every request.
    let layers = ServiceBuilder::new()
        .layer(SetRequestIdLayer::new(id.clone(), NewRequestId))
        .layer(PropagateRequestIdLayer::new(id))
        .layer(no_sniffing)
        .option_layer((!state.options.allowed_origins.is_empty()).then_some(cors))
        .layer(from_fn_with_state(state.clone(), observe))
        .layer(from_fn_with_state(state.clone(), access::check))
        .layer(CatchPanicLayer::custom(panicked))
        // `body::read` limits bodies.
        .layer(DefaultBodyLimit::disable());
    router.layer(layers).with_state(state.clone())
}

/// Leaves one slash at the start of a request's path: clients append a path to an address that ends with one.
pub(crate) fn with_one_slash<B>(mut request: axum::http::Request<B>) -> axum::http::Request<B> {
    let uri = request.uri();
    if uri.path().starts_with("//")
        && let Some(path) = uri.path_and_query()
        && let Ok(path) = format!("/{}", path.as_str().trim_start_matches('/')).parse::<PathAndQuery>()
    {
        let mut parts = uri.clone().into_parts();
        parts.path_and_query = Some(path);
        if let Ok(uri) = Uri::from_parts(parts) {
            *request.uri_mut() = uri;
        }
    }
    request
}

/// The interface in OpenAPI's format.
pub(crate) fn openapi() -> String {
    completed(routes().into_openapi()).to_pretty_json().unwrap_or_default()
}

/// A problem in the form of the interface that `path` belongs to.
fn refuse(path: &str, problem: &Problem) -> Response {
    let problem = &problem.shortened();
    let mut response = if webui::has_path(path) {
        webui::problem::problem_response(problem)
    } else if path == immich::PREDICT {
        immich::problem_response(problem)
    } else if path == embed::EMBED || path == embed_info::INFO {
        embed::problem_response(problem)
    } else if path.starts_with(ollama::PREFIX) {
        ollama::problem_response(problem)
    } else {
        openai::error::problem_response(problem)
    };
    *response.status_mut() = problem.status;
    if let Some(time) = problem.retry_after {
        let seconds = time.as_secs_f64().ceil().max(1.0) as u64;
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Carries the problem to [`observe`], which knows the path.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Counts and logs each answer, and formats problems.
async fn observe(Extract(state): Extract<Shared>, request: Request, next: Next) -> Response {
    let start = Instant::now();
    let path = request.uri().path().to_owned();
    let method = request.method().clone();
    let route =
        request.extensions().get::<MatchedPath>().map_or("other".to_owned(), |path| path.as_str().to_owned());
    let id =
        request.extensions().get::<RequestId>().and_then(|id| id.header_value().to_str().ok()).map(shown);
    let mut response = next.run(request).await;
    let problem = response.extensions_mut().remove::<Problem>();
    if let Some(problem) = &problem {
        let headers = std::mem::take(response.headers_mut());
        response = refuse(&path, problem);
        for (name, value) in headers {
            // What routing added, such as `Allow`.
            if let Some(name) =
                name.filter(|name| *name != header::CONTENT_LENGTH && *name != header::CONTENT_TYPE)
            {
                response.headers_mut().insert(name, value);
            }
        }
        state.metrics.add_problem(problem.kind());
    }
    let (status, time) = (response.status().as_u16(), start.elapsed());
    state.metrics.add_request(&route, status, time);
    let seconds = time.as_secs_f64();
    let id = id.unwrap_or_default();
    match problem {
        Some(problem) if problem.status.is_server_error() => {
            tracing::error!(%method, path = route, status, seconds, id, problem = shown(&problem.message), "answered");
        }
        Some(problem) => {
            tracing::info!(%method, path = route, status, seconds, id, problem = shown(&problem.message), "answered");
        }
        None if PROBES.contains(&route.as_str()) => {
            tracing::debug!(%method, path = route, status, seconds, id, "answered");
        }
        None => tracing::info!(%method, path = route, status, seconds, id, "answered"),
    }
    response
}

/// Answers a request whose handler panicked.
fn panicked(_: Box<dyn Any + Send>) -> Response {
    Problem::failed().into_response()
}

/// Names requests that come without a name.
#[derive(Clone)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &axum::http::Request<B>) -> Option<RequestId> {
        let id = HeaderValue::from_str(&Uuid::new_v4().to_string()).ok()?;
        Some(RequestId::new(id))
    }
}
